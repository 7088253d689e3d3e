"""The constant values that a .tflite file holds."""

from __future__ import annotations

import math

import numpy as np

from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.graph import TapPoint
from layertap.errors import Untappable
from layertap.tflite.flatbuffer import damaged
from layertap.tflite.model import Tensor, TfliteModel
from layertap.tflite.schema import BITS
from layertap.tflite.sizes import stored_bytes


def weight(model: TfliteModel, tap: TapPoint) -> Array:
    """The value of the weight ``tap``, as :func:`constant`; raises Untappable for other kinds."""
    if tap.kind != "weight" or tap.untappable:
        raise Untappable(
            f"{tap.name!r} cannot be read without running the model: "
            f"{tap.untappable or f'it is of kind {tap.kind}'}",
            hint="only weights are kept in the file",
        )
    return constant(model, model.subgraphs[tap.subgraph].tensors[tap.index])


def constant(model: TfliteModel, tensor: Tensor) -> Array:
    """The value of a constant tensor, in its own shape and dtype; the caller's to keep.

    Raises Untappable for a dtype that NumPy lacks and CorruptModel when the file holds another
    number of bytes than the shape needs.
    """
    dtype = numpy_dtype(tensor.dtype)
    if dtype is None:
        raise Untappable(
            f"{tensor.name!r} cannot be read: it holds {tensor.dtype}",
            hint="only tensors of numbers can be read",
        )
    bits = BITS.get(tensor.dtype, 8 * dtype.itemsize)
    count = math.prod(tensor.shape)
    if len(tensor.data) != stored_bytes(tensor.dtype, tensor.shape):
        raise damaged(f"{tensor.name!r} of shape {tensor.shape} has {len(tensor.data):,} bytes")
    stored = model.data[tensor.data.start : tensor.data.stop]
    if bits < 8:
        return _unpack(np.frombuffer(stored, np.uint8), count, bits, dtype).reshape(tensor.shape)
    return np.frombuffer(bytearray(stored), dtype).reshape(tensor.shape)


def _unpack(stored: Array, count: int, bits: int, dtype: np.dtype[np.generic]) -> Array:
    """Elements of ``bits`` bits each, lowest bits of a byte first, as one element per byte."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (stored[:, None] >> shifts & ((1 << bits) - 1)).ravel()[:count].astype(np.int8)
    if not dtype.name.startswith("u"):
        codes = np.where(codes >= 1 << (bits - 1), codes - (1 << bits), codes).astype(np.int8)
    return codes.astype(dtype)


__all__ = ["constant", "weight"]
