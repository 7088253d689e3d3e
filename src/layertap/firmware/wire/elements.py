"""Element types on the wire: their numbers, names, and how many bytes so many of them take."""

from __future__ import annotations

import numpy as np

from layertap.core.dtypes import Array, numpy_dtype
from layertap.errors import WireError

DTYPES = {
    1: "float32",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    8: "complex64",
    9: "int8",
    10: "float16",
    11: "float64",
    12: "complex128",
    13: "uint64",
    16: "uint32",
    17: "uint16",
    18: "int4",
    19: "bfloat16",
}
"""``TfLiteType`` numbers of the types that can be sent, with their names in layertap."""
NUMBERS = {name: number for number, name in DTYPES.items()}
COMPLEX = frozenset({"complex64", "complex128"})


def dtype_name(number: int) -> str:
    """The name of ``TfLiteType`` ``number``. Raises WireError when such a type is not sent."""
    if number not in DTYPES:
        raise WireError(
            f"a tensor has element type {number}, which the wire format lacks",
            hint=f"it knows {', '.join(f'{n} {name}' for n, name in DTYPES.items())}",
        )
    return DTYPES[number]


def stored_bytes(dtype: str, count: int) -> int:
    """Bytes of ``count`` elements as a board holds them: int4 two per byte, rounded up."""
    return (count + 1) // 2 if dtype == "int4" else count * _item_bytes(dtype)


def from_bytes(data: bytearray, dtype: str, count: int) -> Array:
    """``count`` elements from their bytes; a flat array that takes ``data`` over where it can."""
    if dtype == "bool":
        return np.frombuffer(data, np.uint8, count).astype(np.bool_)
    if dtype != "int4":
        return np.frombuffer(data, numpy_dtype(dtype), count)
    packed = np.frombuffer(data, np.uint8)
    codes = np.stack((packed & 15, packed >> 4), axis=-1).reshape(-1)[:count].astype(np.int8)
    signed: Array = np.where(codes > 7, codes - 16, codes).astype(numpy_dtype("int4"))
    return signed


def _item_bytes(dtype: str) -> int:
    found = numpy_dtype(dtype)
    if found is None or dtype not in NUMBERS:
        raise WireError(f"{dtype} cannot be sent", hint=f"these can: {', '.join(NUMBERS)}")
    return found.itemsize


__all__ = ["COMPLEX", "DTYPES", "NUMBERS", "dtype_name", "from_bytes", "stored_bytes"]
