"""How many bytes a tensor takes in the file, and shapes that no tensor can have."""

from __future__ import annotations

import math
from collections.abc import Sequence

from layertap.core.dtypes import numpy_dtype
from layertap.tflite.flatbuffer import damaged
from layertap.tflite.schema import BITS

MOST_ELEMENTS = 1 << 44
"""Far above what any machine holds; more is the work of damaged bytes."""

MOST_DIMENSIONS = 64
"""As many as NumPy has."""


def stored_bytes(dtype: str, shape: Sequence[int]) -> int | None:
    """Bytes of a constant of ``dtype`` and ``shape``; None where an element has no fixed size or
    a dimension is open."""
    kind = numpy_dtype(dtype)
    if kind is None or any(size < 0 for size in shape):
        return None
    return (math.prod(shape) * BITS.get(dtype, 8 * kind.itemsize) + 7) // 8


def check_shape(what: str, shape: Sequence[int]) -> None:
    """Raise CorruptModel for a shape that ``what`` cannot have; -1 is an open dimension."""
    if len(shape) > MOST_DIMENSIONS:
        raise damaged(f"{what} has {len(shape):,} dimensions")
    if any(size < -1 for size in shape):
        raise damaged(f"{what} has the impossible shape {list(shape)}")
    if math.prod(abs(size) for size in shape) > MOST_ELEMENTS:
        raise damaged(f"{what} has the shape {list(shape)}, which no memory could hold")


__all__ = ["MOST_DIMENSIONS", "MOST_ELEMENTS", "check_shape", "stored_bytes"]
