"""Read many taps in a small arena: split them into passes that fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layertap.arena.grouping import split
from layertap.arena.mapping import memory_map, tapped
from layertap.arena.price import TapCosts
from layertap.arena.target import Target
from layertap.errors import ArenaExceeded, PlanError
from layertap.tflite.graph import MAIN, tensor_names
from layertap.tflite.model import TfliteModel


@dataclass(frozen=True, slots=True)
class Passes:
    """``groups`` of tensor indices, each of which one execution reads within ``arena`` bytes;
    ``taps`` are their names and ``needs`` the bytes of arena that each takes.

    No split has fewer than ``at_least`` groups. ``unknown`` names what no table covers; then the
    truth may need more.
    """

    arena: int
    groups: tuple[tuple[int, ...], ...]
    taps: tuple[tuple[str, ...], ...]
    needs: tuple[int, ...]
    at_least: int
    unknown: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        return not self.unknown

    @property
    def fewest(self) -> bool:
        """Whether it is proven that fewer passes are impossible."""
        return len(self.groups) == self.at_least


def passes(model: TfliteModel, target: Target, wanted: Sequence[int], arena: int) -> Passes:
    """Few passes that together read ``wanted``, tensors of the main subgraph, in ``arena`` bytes.

    Up to 10 tensors no split has fewer passes. Each pass was checked against the memory map of the
    model with its taps. Raises ArenaExceeded for an arena that is too small for the model, or for
    one of the tensors alone; Untappable for tensors that cannot be outputs, and CorruptModel.
    """
    costs = TapCosts(model, target)
    _check(costs, wanted, arena)
    limits = costs.limits(wanted, arena)
    found = split(wanted, lambda group: costs.minimum(group) <= arena, limits)
    groups = found.groups or ((),)
    needs = tuple(memory_map(tapped(model, group), target).arena.minimum for group in groups)
    for group, needed in zip(groups, needs, strict=True):
        if needed > arena:
            raise PlanError(
                f"the pass over {len(group)} taps needs {needed:,} bytes, not {arena:,} or less",
                hint="this is a mistake of layertap; please report the model",
            )
    names = tensor_names(model)[MAIN]
    taps = tuple(tuple(names[i] for i in group) for group in groups)
    return Passes(arena, groups, taps, needs, max(1, found.at_least), costs.map.arena.unknown)


def _check(costs: TapCosts, wanted: Sequence[int], arena: int) -> None:
    """Raise for what does not fit even alone."""
    base = costs.map.arena.minimum
    if base > arena:
        raise ArenaExceeded(
            "the model, without any tap,",
            base,
            arena,
            hint="give more, or find a better layout with layertap memory --optimize",
        )
    tapped(costs.model, wanted)
    alone = {tap: costs.minimum([tap]) for tap in wanted}
    large = sorted((tap for tap in alone if alone[tap] > arena), key=lambda tap: -alone[tap])
    if large:
        names = tensor_names(costs.model)[MAIN]
        others = ", ".join(repr(names[tap]) for tap in large[1:4])
        more = f"; too large are also {others}" if others else ""
        raise ArenaExceeded(
            f"the tap {names[large[0]]!r} fits in no pass: it",
            alone[large[0]],
            arena,
            hint=f"give more, or leave it out{more}",
        )


__all__ = ["Passes", "passes"]
