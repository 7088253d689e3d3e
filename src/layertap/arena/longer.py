"""The arena's head when some buffers live longer than planned: what taps cost.

A tap keeps its buffer alive to the end. That changes neither sizes nor the order in which the
greedy planner places them, so only those buffers move that stand in its way, and those that stand
in theirs. This finds them instead of planning everything anew.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from layertap.arena.buffers import Buffer, extent
from layertap.arena.planners import greedy, order_of_placement
from layertap.core.dtypes import Array

_FEW = 32
"""Buffers up to which plain lists are faster than arrays, and up to which they are remembered."""

_MANY = 16
"""Changes from which planning everything anew is faster."""


class LongerLives:
    """A greedy layout, and what it becomes when buffers live on until the scope ``end``."""

    def __init__(self, buffers: Sequence[Buffer], end: int) -> None:
        self.buffers, self.end = list(buffers), end
        self.offsets = greedy(self.buffers)
        self.head = extent(self.buffers, self.offsets)
        # A fixed buffer that becomes free changes the order of all.
        self._fixed = any(buffer.fixed is not None for buffer in self.buffers)
        self._order = order_of_placement(self.buffers)
        self._rank = np.empty(len(self.buffers), np.int64)
        self._rank[self._order] = np.arange(len(self.buffers))
        self._first = np.array([buffer.first for buffer in self.buffers], np.int64)
        self._last = np.array([buffer.last for buffer in self.buffers], np.int64)
        self._size = np.array([buffer.size for buffer in self.buffers], np.int64)
        self._start = np.array(self.offsets, np.int64)
        self._near: dict[int, Array] = {}

    def head_with(self, longer: Iterable[int]) -> int:
        """Bytes of the head when the buffers at these positions live to the end, and lie wherever
        the planner wants."""
        chosen = [i for i in dict.fromkeys(longer) if self._changes(i)]
        if not chosen:
            return self.head
        if self._fixed or len(chosen) > _MANY:
            return self._anew(chosen)
        return _Replan(self, chosen).head()

    def near(self, i: int) -> Array:
        """Positions of the buffers that are alive with buffer ``i`` in the layout as it is."""
        if i in self._near:
            return self._near[i]
        alive = (self._first <= self._last[i]) & (self._last >= self._first[i])
        found = np.flatnonzero(alive)
        if len(found) <= _FEW:
            self._near[i] = found
        return found

    def _changes(self, i: int) -> bool:
        buffer = self.buffers[i]
        return buffer.last < self.end or buffer.fixed is not None

    def _anew(self, chosen: Iterable[int]) -> int:
        buffers = list(self.buffers)
        for i in chosen:
            buffers[i] = replace(buffers[i], last=self.end, fixed=None)
        return extent(buffers, greedy(buffers))


class _Replan:
    """One change of a layout: buffers are taken up again in the planner's order, but only those
    whose place may have changed."""

    def __init__(self, base: LongerLives, longer: Sequence[int]) -> None:
        self.base, self.longer = base, longer
        self.last = base._last.copy()
        self.last[list(longer)] = base.end
        self.start = base._start.copy()
        self.dirty = [int(base._rank[i]) for i in longer]
        heapq.heapify(self.dirty)
        self.waiting = set(self.dirty)

    def head(self) -> int:
        while self.dirty:
            rank = heapq.heappop(self.dirty)
            self.waiting.discard(rank)
            self._place(self.base._order[rank], rank)
        return int((self.start + self.base._size).max(initial=0))

    def _place(self, i: int, rank: int) -> None:
        alive = self._alive_with(i)
        ranks = self.base._rank[alive]
        earlier = alive[ranks < rank]
        old, size = int(self.start[i]), int(self.base._size[i])
        new = _lowest_gap(self.start[earlier], self.base._size[earlier], size)
        self.start[i] = new
        if new != old or i in self.longer:
            self._wake(i, alive[ranks > rank], old, new)

    def _alive_with(self, i: int) -> Array:
        """Buffers whose life meets that of ``i``, the longer lives counted."""
        base = self.base
        if i in self.longer:
            return np.flatnonzero(self.last >= base._first[i])
        added = [
            k
            for k in self.longer
            if base._last[k] < base._first[i] and self.last[k] >= base._first[i]
        ]
        near = base.near(i)
        return np.concatenate([near, added]).astype(np.int64) if added else near

    def _wake(self, i: int, later: Array, old: int, new: int) -> None:
        """Take up again those of ``later`` that ``i`` displaces, or that could lie lower now."""
        base, start = self.base, self.start[later]
        displaced = (start < new + base._size[i]) & (start + base._size[later] > new)
        if new != old:
            # Only who was alive with it before can have been kept up by it.
            displaced |= (base._first[later] <= base._last[i]) & (start > old)
        for rank in base._rank[later[displaced]].tolist():
            if rank not in self.waiting:
                self.waiting.add(rank)
                heapq.heappush(self.dirty, rank)


def _lowest_gap(starts: Array, sizes: Array, size: int) -> int:
    """Where ``size`` bytes fit between those that lie at ``starts``."""
    if len(starts) > _FEW:
        return _lowest_gap_of_many(starts, sizes, size)
    floor = 0
    for start, taken in sorted(zip(starts.tolist(), sizes.tolist(), strict=True)):
        if start - floor >= size:
            break
        floor = max(floor, start + taken)
    return floor


def _lowest_gap_of_many(starts: Array, sizes: Array, size: int) -> int:
    order = np.argsort(starts, kind="stable")
    starts = starts[order]
    ends = np.maximum.accumulate(starts + sizes[order])
    floors = np.concatenate([[0], ends[:-1]])
    fits = np.flatnonzero(starts - floors >= size)
    return int(floors[fits[0]] if len(fits) else ends[-1])


__all__ = ["LongerLives"]
