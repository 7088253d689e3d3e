"""The planner of TensorFlow Lite Micro: which offset each buffer gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layertap.arena.buffers import Buffer
from layertap.core.dtypes import Array

_BLOCK = 256
"""Buffers that are looked through together."""

_NEVER = -2
"""Below every scope, UNUSED included: the end of life of what is not placed yet."""


def greedy(buffers: Sequence[Buffer]) -> list[int]:
    """The offset of each buffer, bytes, as the greedy planner lays them out.

    Buffers with a fixed offset go first, unchecked. The rest follows by falling size, of equal
    ones the later first, each into the lowest gap between those that are alive with it.
    Source: tflite-micro, tensorflow/lite/micro/memory_planner/greedy_memory_planner.cc.
    """
    placed = _Placed(buffers)
    for i in order_of_placement(buffers):
        fixed = buffers[i].fixed
        placed.put(i, placed.lowest_gap(i) if fixed is None else fixed)
    return [int(offset) for offset in placed.offsets]


def order_of_placement(buffers: Sequence[Buffer]) -> list[int]:
    """Positions in the order in which the greedy planner places them."""
    fixed = [i for i, buffer in enumerate(buffers) if buffer.fixed is not None]
    free = [i for i, buffer in enumerate(buffers) if buffer.fixed is None]
    return fixed + sorted(free, key=lambda i: (-buffers[i].size, -i))


class _Placed:
    """Placed buffers, found by the time in which they are alive.

    Rows are sorted by birth and cut into blocks that know their latest death, so that of a long
    chain only the few blocks are looked at where something is alive.
    """

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self.buffers = buffers
        self.offsets = np.zeros(len(buffers), np.int64)
        by_birth = sorted(range(len(buffers)), key=lambda i: buffers[i].first)
        self.row = {i: row for row, i in enumerate(by_birth)}
        rows = -(-len(buffers) // _BLOCK) * _BLOCK
        self.first = np.full(rows, np.iinfo(np.int64).max)
        self.first[: len(buffers)] = [buffers[i].first for i in by_birth]
        self.last = np.full(rows, _NEVER, np.int64)
        self.start, self.end = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self.latest = np.full(rows // _BLOCK, _NEVER, np.int64)

    def put(self, i: int, offset: int) -> None:
        row, buffer = self.row[i], self.buffers[i]
        self.offsets[i] = self.start[row] = offset
        self.end[row] = offset + buffer.size
        self.last[row] = buffer.last
        self.latest[row // _BLOCK] = max(int(self.latest[row // _BLOCK]), buffer.last)

    def lowest_gap(self, i: int) -> int:
        buffer = self.buffers[i]
        rows = self._alive_with(buffer)
        if not len(rows):
            return 0
        rows = rows[np.argsort(self.start[rows], kind="stable")]
        ends = np.maximum.accumulate(np.maximum(self.end[rows], 0))
        floors = np.concatenate([[0], ends[:-1]])
        fits = np.flatnonzero(self.start[rows] - floors >= buffer.size)
        return int(floors[fits[0]] if len(fits) else ends[-1])

    def _alive_with(self, buffer: Buffer) -> Array:
        """Rows of the placed buffers whose life meets that of ``buffer``."""
        born = int(np.searchsorted(self.first, buffer.last, "right"))
        blocks = np.flatnonzero(self.latest[: -(-born // _BLOCK)] >= buffer.first)
        rows = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
        alive: Array = rows[(self.last[rows] >= buffer.first) & (rows < born)]
        return alive


__all__ = ["greedy", "order_of_placement"]
