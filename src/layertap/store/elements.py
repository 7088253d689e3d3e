"""Which element types Zarr stores as they are, and how the others are widened without loss."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from layertap.core.dtypes import Array
from layertap.errors import StoreError

NATIVE = frozenset(
    {"bool", "float16", "float32", "float64", "complex64", "complex128"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
"""The data types of the Zarr v3 core specification; every reader knows them."""

_QUIET_NAN = 0x7FC00000


@functools.cache
def _is_native(dtype: np.dtype[Any]) -> bool:
    return dtype.name in NATIVE  # NumPy composes the name anew each time, at some cost


@functools.cache
def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The little-endian dtype in which elements of ``dtype`` lie on disk.

    bfloat16 and the float types of at most 8 bits become float32, integers of fewer than 8 bits
    become int8 or uint8. Raises StoreError for what is not a number.
    """
    if _is_native(dtype):
        return dtype.newbyteorder("<")
    if dtype.name == "bfloat16" or dtype.name.startswith("float"):
        if dtype.itemsize <= 2:
            return np.dtype("<f4")
    elif dtype.name.startswith(("int", "uint")) and dtype.itemsize == 1:
        return np.dtype(np.uint8 if dtype.name.startswith("u") else np.int8)
    raise StoreError(
        f"elements of type {dtype} cannot be stored", hint="leave this tap out of the selection"
    )


def widen(rows: Array) -> Array:
    """``rows`` in C order as they lie on disk; no copy where they are so already."""
    dtype = rows.dtype
    stored = stored_dtype(dtype)
    if _is_native(dtype) or stored.itemsize == 1:
        return np.asarray(rows, dtype=stored, order="C")
    rows = np.asarray(rows, order="C")
    if dtype.name == "bfloat16":
        # By bits and not by value, so that the payload of a NaN survives.
        bits = rows.view(np.uint16).astype("<u4") << np.uint32(16)
        return bits.view(stored)
    return _patterns(dtype)[rows.view(np.uint8)].astype("<u4", copy=False).view(stored)


def narrow(stored: Array, dtype: np.dtype[Any]) -> Array:
    """The inverse of :func:`widen`, bit for bit."""
    if _is_native(dtype):
        return stored.astype(dtype, copy=False)
    if stored.dtype.itemsize == 1:
        return stored.astype(dtype)
    bits = np.asarray(stored, order="C").view("<u4")
    if dtype.name == "bfloat16":
        return (bits >> np.uint32(16)).astype(np.uint16).view(dtype)
    patterns = _patterns(dtype)
    order = np.argsort(patterns).astype(np.uint8)
    found = np.searchsorted(patterns[order], bits)
    return order[np.minimum(found, order.size - 1)].view(dtype)


@functools.cache
def _patterns(dtype: np.dtype[Any]) -> Array:
    """The float32 bits that stand for each code of a float type of at most 8 bits.

    A NaN carries its own code as payload, so that several NaNs stay apart.
    """
    import ml_dtypes

    bits: int = ml_dtypes.finfo(dtype).bits  # type: ignore[no-untyped-call]
    codes = np.arange(1 << bits, dtype=np.uint8)
    values = codes.view(dtype).astype(np.float32)
    own = np.uint32(_QUIET_NAN) | codes.astype(np.uint32)
    return np.where(np.isnan(values), own, values.view(np.uint32))
