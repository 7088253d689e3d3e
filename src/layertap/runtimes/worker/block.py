"""Memory that a session and its worker share: what is fed, what was computed, how far it is."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from layertap.core.dtypes import Array, numpy_dtype

ALIGNMENT = 64
"""Of all that lies in a block, bytes."""

HEAD = ALIGNMENT
"""Bytes at the start of a block for the progress of the worker."""

_PROGRESS = struct.Struct("=dq")

_GROWTH = 1 << 20
"""A block grows by multiples of so many bytes."""

Place = tuple[str, Sequence[int], int]
"""The dtype and shape of an array in a block, and its first byte."""


class Block:
    """A file in memory, mapped by both sides; it grows with what is put there."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory: mmap.mmap | bytearray = bytearray()

    @classmethod
    def made(cls) -> Block:
        """A new block, which is gone with the last process that has it. Raises OSError."""
        block = cls(_file())
        try:
            block.reach(HEAD)
        except BaseException:
            block.close()
            raise
        return block

    def close(self) -> None:
        """Give back the file; arrays that lie there stay valid. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def reach(self, size: int) -> None:
        """Map at least ``size`` bytes, which the other side may have provided. Raises OSError when
        there is not so much memory: what is mapped without any would end the process."""
        if size <= len(self._memory):
            return
        if os.fstat(self.descriptor).st_size < size:
            size = -(-size // _GROWTH) * _GROWTH
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self.descriptor, 0, size)
            else:
                os.truncate(self.descriptor, size)
        self._memory = mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size)

    def array(self, place: Place, stride: int | None = None) -> Array:
        """The array that lies there; ``stride``: bytes from one row to the next, where they are
        more than those of a row. Raises OSError."""
        name, shape, offset = place
        dtype = numpy_dtype(name)
        assert dtype is not None, name
        rows, row = shape[0], dtype.itemsize * math.prod(shape[1:])
        self.reach(offset + (rows * row if stride is None else (rows - 1) * stride + row))
        flat: Array = np.ndarray(shape, dtype, self._memory, offset)
        if stride is None:
            return flat
        return np.ndarray(shape, dtype, self._memory, offset, (stride, *flat.strides[1:]))

    def put(self, arrays: Sequence[Array]) -> tuple[list[Place], int]:
        """Copy ``arrays`` in, of at least one axis each; where each lies, and the first byte
        behind them. Raises OSError."""
        places: list[Place] = []
        end = HEAD
        for array in arrays:
            places.append((array.dtype.name, array.shape, end))
            end = aligned(end + array.nbytes)
        self.reach(end)
        for array, place in zip(arrays, places, strict=True):
            self.array(place)[...] = array
        return places, end

    def tell(self, done: int) -> float:
        """So many executions are complete by now, which is returned."""
        now = time.monotonic()
        _PROGRESS.pack_into(self._memory, 0, now, done)
        return now

    @property
    def told(self) -> tuple[float, int]:
        """When :meth:`tell` was last called (of the clock that all processes share), with what."""
        when, done = _PROGRESS.unpack_from(self._memory)
        return when, done


def _file() -> int:
    """A file in memory, or where the system has none, on disk without a name."""
    with contextlib.suppress(AttributeError, OSError):
        return os.memfd_create("layertap")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def aligned(size: int) -> int:
    """``size`` bytes and what it takes to where the next array may start."""
    return -(-size // ALIGNMENT) * ALIGNMENT


__all__ = ["ALIGNMENT", "HEAD", "Block", "Place", "aligned"]
