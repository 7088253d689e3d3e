"""Split things into as few groups as fit: bin packing where only trying tells what fits.

Whether a group fits is asked for each group, since it is no matter of sums: the greedy planner may
even fit a larger group where a smaller one does not fit. What is a matter of sums, the ``loads``,
only rules groups out, and bounds how few there can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Fits = Callable[[Sequence[int]], bool]

_EXACT = 10
"""Things up to which every way to split them is looked at."""

_TRIES = 16
"""Groups with room enough that are tried for one thing."""

_STEPS = 2_000
"""Groups that the search for one group less looks at."""

_SEARCHED = 200
"""Things up to which there is such a search."""


@dataclass(frozen=True, slots=True)
class Groups:
    """``groups`` in the order of their first members; no split has fewer than ``at_least``."""

    groups: tuple[tuple[int, ...], ...]
    at_least: int

    @property
    def fewest(self) -> bool:
        """Whether it is proven that there is no split into fewer."""
        return len(self.groups) == self.at_least


def split(things: Sequence[int], fits: Fits, loads: Mapping[int, int], room: int) -> Groups:
    """``things``, each of which fits alone, in few groups that ``fits`` takes.

    Groups whose ``loads`` add up to more than ``room`` never fit. Up to 10 things the split is the
    best there is.
    """
    things = list(dict.fromkeys(things))
    if not things:
        return Groups((), 0)
    if fits(things):
        return Groups((tuple(things),), 1)
    search = _Search(things, fits, loads, room)
    bound = max(2, packing_bound([loads[i] for i in things], room))
    best = min((search.first_fit(order) for order in search.orders()), key=len)
    if len(best) > bound and len(things) <= _EXACT:
        best = search.every_split()
        bound = len(best)
    while len(best) > bound and len(things) <= _SEARCHED:
        fewer = search.into(len(best) - 1)
        if fewer is None:
            break
        best = fewer
    position = {thing: i for i, thing in enumerate(things)}
    groups = [tuple(sorted(group, key=position.__getitem__)) for group in best]
    return Groups(tuple(sorted(groups, key=lambda group: position[group[0]])), bound)


def packing_bound(loads: Iterable[int], room: int) -> int:
    """Groups of at most ``room`` that ``loads`` need at least.

    Source: Martello and Toth, Knapsack Problems, 1990, section 8.3 (the bound L2).
    """
    loads = sorted(load for load in loads if load > 0)
    best = 0
    for small in [0, *(load for load in dict.fromkeys(loads) if 2 * load <= room)]:
        alone = sum(load > room - small for load in loads)
        large = [load for load in loads if load <= room - small and 2 * load > room]
        rest = sum(load for load in loads if small <= load and 2 * load <= room)
        spare = len(large) * room - sum(large)
        best = max(best, alone + len(large) + max(0, -(-(rest - spare) // max(1, room))))
    return best


class _Search:
    def __init__(
        self, things: Sequence[int], fits: Fits, loads: Mapping[int, int], room: int
    ) -> None:
        self.things, self.loads, self.room = things, loads, room
        self.ask = fits
        self.known: dict[frozenset[int], bool] = {}
        self.steps = 0

    def fits(self, group: Sequence[int]) -> bool:
        if sum(self.loads[i] for i in group) > self.room:
            return False
        key = frozenset(group)
        if key not in self.known:
            self.known[key] = self.ask(sorted(key))
        return self.known[key]

    def orders(self) -> list[list[int]]:
        """Orders in which things are put into groups: largest first, and neighbours together."""
        largest = sorted(self.things, key=lambda i: -self.loads[i])
        return [largest, list(self.things), list(reversed(self.things))]

    def first_fit(self, order: Iterable[int]) -> list[list[int]]:
        groups: list[list[int]] = []
        for i in order:
            able = (g for g in groups if sum(self.loads[k] for k in g) + self.loads[i] <= self.room)
            for _, group in zip(range(_TRIES), able, strict=False):
                if self.fits([*group, i]):
                    group.append(i)
                    break
            else:
                groups.append([i])
        return groups

    def into(self, count: int) -> list[list[int]] | None:
        """A split into ``count`` groups, None where a limited search finds none."""
        self.steps = _STEPS
        groups: list[list[int]] = []
        order = sorted(self.things, key=lambda i: -self.loads[i])
        return groups if self._put(order, 0, groups, count) else None

    def _put(self, order: Sequence[int], at: int, groups: list[list[int]], count: int) -> bool:
        if at == len(order):
            return True
        for group in groups:
            self.steps -= 1
            if self.steps < 0:
                return False
            group.append(order[at])
            if self.fits(group) and self._put(order, at + 1, groups, count):
                return True
            group.pop()
        if len(groups) < count:
            groups.append([order[at]])
            if self._put(order, at + 1, groups, count):
                return True
            groups.pop()
        return False

    def every_split(self) -> list[list[int]]:
        """The split into fewest groups, found by looking at every set of things."""
        count = len(self.things)
        members = [[t for k, t in enumerate(self.things) if s >> k & 1] for s in range(1 << count)]
        fewest: list[list[int]] = [[]]
        for whole in range(1, 1 << count):
            low, best = whole & -whole, None
            part = whole
            while part:
                rest = fewest[whole ^ part]
                if part & low and (best is None or len(rest) + 1 < len(best)):
                    best = [*rest, part] if self.fits(members[part]) else best
                part = (part - 1) & whole
            assert best is not None, "each thing fits alone"
            fewest.append(best)
        return [members[part] for part in fewest[-1]]


__all__ = ["Fits", "Groups", "packing_bound", "split"]
