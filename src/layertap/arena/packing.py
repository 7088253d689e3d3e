"""Pack buffers that are alive at known times into as few bytes as possible.

A rectangle packing problem in which only the height is free; hard in general, so this tries many
orders of first fit and knows from a lower bound when it can stop. What it leaves open, the solver
closes.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from layertap.arena.buffers import Buffer, aligned, extent, live_bytes
from layertap.arena.planners import greedy

MOST_PAIRS = 2_000_000
"""Pairs of buffers alive together beyond which only the greedy planner is asked."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """What the operator that runs in scope ``scope`` allows of two buffers that otherwise would
    have to lie apart: the buffer of its result, ``output``, and that of an operand that nothing
    needs afterwards, ``input``; both by their positions.

    They may start at the same byte if ``same``. With a ``distance`` (bytes) the input may also
    start at least so far above the output.
    """

    input: int
    output: int
    scope: int
    same: bool = True
    distance: int | None = None


class Problem:
    """Buffers to place. Those in ``online`` are placed by the interpreter's own planner, around
    the others. ``reuses`` lists the pairs that may share bytes while both are alive, and
    ``neighbours``, for each buffer, those that are alive with it."""

    def __init__(
        self,
        buffers: Sequence[Buffer],
        reuses: Sequence[Reuse] = (),
        online: Collection[int] = (),
    ) -> None:
        self.buffers, self.reuses = tuple(buffers), tuple(reuses)
        self.online = frozenset(online)
        self.neighbours = _neighbours(buffers)
        self._rises = {
            (reuse.input, reuse.output): min(
                aligned(max(0, reuse.distance)), self.buffers[reuse.output].size
            )
            for reuse in reuses
            if reuse.distance is not None
        }
        same = {(reuse.input, reuse.output) for reuse in reuses if reuse.same}
        self._same = same | {(output, operand) for operand, output in same}

    def rise(self, upper: int, lower: int) -> int:
        """Bytes by which ``upper`` must start above ``lower``, where it lies above it."""
        return self._rises.get((upper, lower), self.buffers[lower].size)

    def may_coincide(self, one: int, other: int) -> bool:
        """Whether both may start at the same byte."""
        return (one, other) in self._same

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Pairs that are alive at one time, the lower position first."""
        for i, others in enumerate(self.neighbours):
            yield from ((i, j) for j in others if i < j)

    def apart(self, one: int, other: int, offsets: Sequence[int]) -> bool:
        """Whether these two, at ``offsets``, leave each other's bytes alone as they must."""
        gap = offsets[one] - offsets[other]
        if gap == 0 and self.may_coincide(one, other):
            return True
        return gap >= self.rise(one, other) or -gap >= self.rise(other, one)

    def clashes(self, offsets: Sequence[int]) -> list[tuple[int, int]]:
        """Pairs that corrupt each other at ``offsets``."""
        return [(i, j) for i, j in self.pairs() if not self.apart(i, j, offsets)]

    def shared(self, offsets: Sequence[int]) -> list[Reuse]:
        """The reuses that ``offsets`` make use of."""
        return [
            reuse
            for reuse in self.reuses
            if offsets[reuse.input] < offsets[reuse.output] + self.buffers[reuse.output].size
            and offsets[reuse.output] < offsets[reuse.input] + self.buffers[reuse.input].size
        ]

    def realised(self, offsets: Sequence[int]) -> list[int]:
        """Where everything lies when the interpreter's planner has placed what it must."""
        fixed = (
            buffer if i in self.online else Buffer(buffer.size, buffer.first, buffer.last, offset)
            for i, (buffer, offset) in enumerate(zip(self.buffers, offsets, strict=True))
        )
        return greedy(list(fixed))

    def lower_bound(self) -> int:
        """Bytes that every layout needs: the most alive at one time, less what the operator of
        that time can share."""
        live = live_bytes(self.buffers)
        groups = self._by_operator()
        most = now = 0
        for scope in sorted({*live, *groups, *(scope + 1 for scope in groups)}):
            now = live.get(scope, now)
            most = max(most, now - self._saving(groups.get(scope, ())))
        return most

    def _by_operator(self) -> dict[int, list[Reuse]]:
        groups: dict[int, list[Reuse]] = {}
        for reuse in self.reuses:
            groups.setdefault(reuse.scope, []).append(reuse)
        return groups

    def _saving(self, group: Sequence[Reuse]) -> int:
        """Bytes that the output and its operands can have in common at most, all taken together:
        operands never share with one another, so at least the room below the lowest of them, or
        the output itself, remains."""
        if not group:
            return 0
        output = self.buffers[group[0].output].size
        inputs = sum(self.buffers[i].size for i in {reuse.input for reuse in group})
        lowest = min(self._lowest(reuse) for reuse in group)
        return output + inputs - max(output, inputs + lowest)

    def _lowest(self, reuse: Reuse) -> int:
        return 0 if reuse.same else self.rise(reuse.input, reuse.output)


@dataclass(frozen=True, slots=True)
class Packed:
    """``offsets`` in bytes, ``head`` as the interpreter will have it, and the lower bound of
    every layout. ``solver`` names what found it."""

    offsets: tuple[int, ...]
    head: int
    bound: int
    solver: str

    @property
    def optimal(self) -> bool:
        return self.head == self.bound


def pack(problem: Problem, *, tries: int = 400) -> Packed:
    """The best layout of many orders of first fit, the greedy planner's own among them."""
    bound = problem.lower_bound()
    best = measured(problem, greedy(problem.buffers), bound, "greedy")
    for offsets in _attempts(problem, tries):
        if best.optimal:
            break
        found = measured(problem, offsets, bound, "first fit")
        best = min(best, found, key=lambda packed: packed.head)
    return best


def measured(problem: Problem, offsets: Sequence[int], bound: int, solver: str) -> Packed:
    """``offsets`` with the head that the interpreter has at them. Raises AssertionError if
    something is overwritten."""
    assert not problem.clashes(offsets)
    head = extent(problem.buffers, problem.realised(offsets))
    return Packed(tuple(offsets), head, bound, solver)


def _attempts(problem: Problem, tries: int) -> Iterator[list[int]]:
    """Layouts by first fit: in the usual orders, then in orders that grow out of the best one."""
    orders = [_order(problem, key) for key in _KEYS]
    layouts = [first_fit(problem, order) for order in orders]
    yield from layouts
    heads = [extent(problem.buffers, offsets) for offsets in layouts]
    start = heads.index(min(heads))
    order, offsets, head = orders[start], layouts[start], heads[start]
    # The same every time, so that the same model gives the same file.
    rng = random.Random(0)
    for _ in range(tries if len(order) > 2 else 0):
        changed = _changed(problem, order, offsets, rng)
        found = first_fit(problem, changed)
        height = extent(problem.buffers, found)
        if height < head:
            yield found
        if height <= head:
            order, offsets, head = changed, found, height


def _changed(
    problem: Problem, order: Sequence[int], offsets: Sequence[int], rng: random.Random
) -> list[int]:
    """``order`` with a buffer that ends at the very top, or one alive with it, moved ahead."""
    ends = [o + b.size for o, b in zip(offsets, problem.buffers, strict=True)]
    top = rng.choice([i for i, end in enumerate(ends) if end == max(ends)])
    moved = rng.choice([top, *problem.neighbours[top]])
    rest = [i for i in order if i != moved]
    at = rng.randrange(order.index(moved) + 1)
    return [*rest[:at], moved, *rest[at:]]


def first_fit(problem: Problem, order: Sequence[int]) -> list[int]:
    """Offsets of all buffers, each in turn put into the lowest place that is free for it."""
    placed: list[int | None] = [None] * len(problem.buffers)
    for i in order:
        placed[i] = _lowest_place(problem, i, placed)
    return [offset or 0 for offset in placed]


def _lowest_place(problem: Problem, i: int, placed: Sequence[int | None]) -> int:
    taken: list[tuple[int, int]] = []
    for j in problem.neighbours[i]:
        at = placed[j]
        if at is None:
            continue
        below, above = at - problem.rise(j, i), at + problem.rise(i, j)
        if problem.may_coincide(i, j):
            taken += [(below, at), (at, above)]
        else:
            taken.append((below, above))
    place = 0
    # Offsets strictly between both ends of a pair are taken.
    for below, above in sorted(taken):
        if below >= place:
            break
        place = max(place, above)
    return place


def _order(problem: Problem, key: Callable[[Buffer], tuple[int, ...]]) -> list[int]:
    return sorted(range(len(problem.buffers)), key=lambda i: (key(problem.buffers[i]), i))


_KEYS: tuple[Callable[[Buffer], tuple[int, ...]], ...] = (
    lambda b: (-b.size,),
    lambda b: (-b.size * (b.last - b.first + 1),),
    lambda b: (-(b.last - b.first), -b.size),
    lambda b: (b.first, -b.size),
    lambda b: (-b.last, -b.size),
    lambda b: (b.first, -b.last),
)


def count_pairs(buffers: Sequence[Buffer]) -> int:
    """Pairs of buffers that are alive at one time."""
    births = sorted(buffer.first for buffer in buffers)
    deaths = sorted(buffer.last for buffer in buffers)
    pairs = 0
    for n, birth in enumerate(births):
        pairs += n - bisect_left(deaths, birth)
    return pairs


def _neighbours(buffers: Sequence[Buffer]) -> tuple[tuple[int, ...], ...]:
    found: list[list[int]] = [[] for _ in buffers]
    alive: set[int] = set()
    ends: list[tuple[int, int]] = []
    for i in sorted(range(len(buffers)), key=lambda i: buffers[i].first):
        while ends and ends[0][0] < buffers[i].first:
            alive.discard(heappop(ends)[1])
        for j in alive:
            found[i].append(j)
            found[j].append(i)
        alive.add(i)
        heappush(ends, (buffers[i].last, i))
    return tuple(tuple(sorted(others)) for others in found)


__all__ = [
    "MOST_PAIRS",
    "Packed",
    "Problem",
    "Reuse",
    "count_pairs",
    "first_fit",
    "measured",
    "pack",
]
