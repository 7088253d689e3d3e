"""Messages between a session and its worker: a JSON header, then the bytes of arrays."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from layertap.core.dtypes import Array, numpy_dtype

_LENGTH = struct.Struct("<I")

Header = dict[str, Any]


def send(stream: IO[bytes], header: Mapping[str, Any], arrays: Sequence[Array] = ()) -> None:
    """Write one message; arrays of any dtype and shape."""
    described = [(array.dtype.name, array.shape) for array in arrays]
    text = json.dumps({**header, "arrays": described}).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for array in arrays:
        # Types that NumPy does not know itself, such as bfloat16, have no buffer interface.
        stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[Header, list[Array]]:
    """Read one message; the arrays are the receiver's own. Raises EOFError at the end."""
    (length,) = _LENGTH.unpack(_exactly(stream, bytearray(_LENGTH.size)))
    header: Header = json.loads(bytes(_exactly(stream, bytearray(length))))
    arrays = []
    for name, shape in header.pop("arrays"):
        dtype = numpy_dtype(name)
        assert dtype is not None, name
        array = np.empty(shape, dtype)
        _exactly(stream, array.reshape(-1).view(np.uint8))
        arrays.append(array)
    return header, arrays


def _exactly(stream: IO[bytes], buffer: Any) -> Any:
    """Fill ``buffer``; a short read means that the other side is gone."""
    view = memoryview(buffer)
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count
    return buffer


__all__ = ["Header", "receive", "send"]
