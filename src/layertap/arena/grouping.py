"""Split things into as few groups as fit: bin packing where only trying tells what fits.

Whether a group fits is asked for each group, since it is no matter of sums: the greedy planner may
even fit a larger group where a smaller one does not fit. What is a matter of sums, the ``limits``,
only rules groups out, and bounds how few there can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import le, sub

Fits = Callable[[Sequence[int]], bool]

_EXACT = 10
"""Things up to which every way to split them is looked at."""

_TRIES = 16
"""Groups with room enough that are tried for one thing."""

_STEPS = 2_000
"""Groups that the search for one group less looks at."""

_SEARCHED = 200
"""Things up to which each is tried in several groups; of more, groups are cut from a row."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Groups whose ``loads`` add up to more than ``room`` do not fit."""

    loads: Mapping[int, int]
    room: int

    def spare(self, group: Iterable[int]) -> int:
        return self.room - sum(self.loads[i] for i in group)


@dataclass(frozen=True, slots=True)
class Groups:
    """``groups`` in the order of their first members; no split has fewer than ``at_least``."""

    groups: tuple[tuple[int, ...], ...]
    at_least: int

    @property
    def fewest(self) -> bool:
        """Whether it is proven that there is no split into fewer."""
        return len(self.groups) == self.at_least


def split(things: Sequence[int], fits: Fits, limits: Sequence[Limit] = ()) -> Groups:
    """``things``, each of which fits alone, in few groups that ``fits`` takes.

    What breaks one of the ``limits`` is not asked for; the tightest one should come first. Up to
    10 things the split is the best there is.
    """
    things = list(dict.fromkeys(things))
    if not things:
        return Groups((), 0)
    if fits(things):
        return Groups((tuple(things),), 1)
    search = _Search(things, fits, limits)
    bound = max([2, *(packing_bound(limit.loads.values(), limit.room) for limit in limits)])
    best = search.packed(bound)
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
    def __init__(self, things: Sequence[int], fits: Fits, limits: Sequence[Limit]) -> None:
        self.things, self.ask, self.limits = things, fits, limits
        self.known: dict[frozenset[int], bool] = {}
        self.steps = 0
        self.largest = sorted(things, key=lambda i: tuple(-limit.loads[i] for limit in limits))

    def fits(self, group: Sequence[int]) -> bool:
        if any(limit.spare(group) < 0 for limit in self.limits):
            return False
        key = frozenset(group)
        if key not in self.known:
            self.known[key] = self.ask(sorted(key))
        return self.known[key]

    def packed(self, bound: int) -> list[list[int]]:
        """The best of some quick ways to pack; the first that needs ``bound`` groups is best."""
        pack = self.first_fit if len(self.things) <= _SEARCHED else self.cut
        best: list[list[int]] = []
        for order in self.orders():
            found = pack(order)
            best = found if not best or len(found) < len(best) else best
            if len(best) <= bound:
                break
        return best

    def orders(self) -> list[list[int]]:
        """Orders in which things are put into groups: largest first, and neighbours together."""
        return [self.largest, list(self.things), list(reversed(self.things))]

    def first_fit(self, order: Iterable[int]) -> list[list[int]]:
        groups: list[list[int]] = []
        spare: list[list[int]] = []
        for i in order:
            loads = [limit.loads[i] for limit in self.limits]
            able = [n for n, left in enumerate(spare) if all(map(le, loads, left))]
            for n in able[:_TRIES]:
                if self.fits([*groups[n], i]):
                    groups[n].append(i)
                    spare[n] = list(map(sub, spare[n], loads))
                    break
            else:
                groups.append([i])
                spare.append(
                    [limit.room - load for limit, load in zip(self.limits, loads, strict=True)]
                )
        return groups

    def cut(self, order: Sequence[int]) -> list[list[int]]:
        """``order`` cut into pieces, each as long as halving finds it to fit."""
        groups: list[list[int]] = []
        start = 0
        while start < len(order):
            able, unable = start + 1, len(order) + 1
            while unable - able > 1:
                middle = (able + unable) // 2
                if self.fits(order[start:middle]):
                    able = middle
                else:
                    unable = middle
            groups.append(list(order[start:able]))
            start = able
        return groups

    def into(self, count: int) -> list[list[int]] | None:
        """A split into ``count`` groups, None where a limited search finds none."""
        self.steps = _STEPS
        groups: list[list[int]] = []
        return groups if self._put(self.largest, 0, groups, count) else None

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


__all__ = ["Fits", "Groups", "Limit", "packing_bound", "split"]
