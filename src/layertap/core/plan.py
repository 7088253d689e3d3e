"""What a run will read, and how many bytes that is, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from layertap.core.graph import TapPoint, format_table
from layertap.core.units import format_bytes
from layertap.errors import BudgetExceeded, Untappable

Group = Callable[[Sequence[TapPoint]], Sequence[Sequence[TapPoint]]]
"""Splits taps into groups that one pass each can read."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The selected taps, grouped into passes, and the exact bytes of their captures.

    ``passes`` are the groups of taps that one execution of the model reads. ``samples`` and
    ``batches`` are None while the length of the input is unknown.
    """

    taps: tuple[TapPoint, ...]
    passes: tuple[tuple[TapPoint, ...], ...]
    samples: int | None = None
    batches: int | None = None

    @property
    def sample_bytes(self) -> int | None:
        """Bytes that one sample adds, None while a selected tap's size is unknown."""
        return _total([tap for tap in self.taps if tap.per == "sample"])

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all captures of the run, None while a size or the length is unknown."""
        if self.samples is None or self.batches is None:
            return None
        total = 0
        for per, count in (("sample", self.samples), ("batch", self.batches), ("run", 1)):
            size = _total([tap for tap in self.taps if tap.per == per])
            if size is None:
                return None
            total += size * count
        return total

    def check(self, budget: int | None) -> None:
        """Raise BudgetExceeded when the total is known and above ``budget`` bytes."""
        needed = None if budget is None else self.total_bytes
        if budget is not None and needed is not None and needed > budget:
            raise BudgetExceeded(needed, budget)

    def __str__(self) -> str:
        sample, total = self.sample_bytes, self.total_bytes
        size = "unknown size" if sample is None else f"{format_bytes(sample)} per sample"
        if total is not None:
            size += f", {total:,} bytes in all for {self.samples} samples"
        if len(self.passes) > 1:
            size += f", in {len(self.passes)} passes"
        return f"{format_table(self.taps)}\n{len(self.taps)} taps, {size}"


def check_readable(taps: Iterable[TapPoint]) -> None:
    """Raise Untappable for the first tap that cannot be read."""
    for tap in taps:
        if tap.untappable:
            raise Untappable(
                f"{tap.name!r} cannot be read: {tap.untappable}",
                hint="leave it out, for instance with '& ~\"NAME\"'",
            )


def make_plan(
    taps: Sequence[TapPoint],
    *,
    group: Group | None = None,
    samples: int | None = None,
    batches: int | None = None,
) -> Plan:
    """A plan that reads ``taps`` in one pass, or as ``group`` splits those that a pass reads.

    Raises Untappable for a tap that cannot be read, and what ``group`` raises.
    """
    check_readable(taps)
    computed = [tap for tap in taps if tap.per != "run"]
    groups = [computed] if group is None or not computed else group(computed)
    passes = tuple(tuple(together) for together in groups if together)
    return Plan(tuple(taps), passes, samples, batches)


def _total(taps: Sequence[TapPoint]) -> int | None:
    sizes = [tap.row_bytes for tap in taps]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
