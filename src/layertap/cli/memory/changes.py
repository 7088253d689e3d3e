"""What changed between two models, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from layertap.arena.difference import Change, Difference
from layertap.arena.memory_map import Peak
from layertap.cli.table import Column, Table, printable

SHOWN = 12
"""Layers and tensors that are shown, largest change first; --json has all."""


def tell_difference(found: Difference, *, wide: bool) -> None:
    """Print the arena's change first, then flash, and what changed most."""
    print(_headline(found))
    print()
    _table("bytes", [*found.arena, *found.sections, *found.flash]).show(wide=wide)
    print(f"\npeak: {_peak(found.peak_before)} -> {_peak(found.peak_after)}")
    for title, changes in (("flash by layer", found.layers), ("in the arena", found.tensors)):
        if changes:
            print()
            _table(title, changes[: None if wide else SHOWN]).show(wide=wide)
        if len(changes) > SHOWN and not wide:
            print(f"and {len(changes) - SHOWN:,} smaller changes; --wide shows them")


def _headline(found: Difference) -> str:
    arena, flash = found.arena[0], found.flash[0]
    if found.same:
        return "both need the same memory"
    return f"arena {_grown(arena)}, flash {_grown(flash)}"


def _grown(change: Change) -> str:
    if not change.growth:
        return f"as before ({change.before or 0:,} bytes)"
    share = f" ({change.growth / change.before:+.1%})" if change.before else ""
    return f"{change.growth:+,} bytes{share}"


def _table(title: str, changes: Iterable[Change]) -> Table:
    columns = (
        Column(title, shorten=True),
        Column("", drop=1),
        Column("before", right=True),
        Column("after", right=True),
        Column("change", right=True),
        Column("share", right=True, drop=3),
        Column("matched", drop=2, shorten=True),
    )
    return Table(columns, [_row(change) for change in changes])


def _row(change: Change) -> tuple[str, ...]:
    both = change.before and change.after and change.growth
    share = f"{change.growth / change.before:+.1%}" if both and change.before else ""
    how = f"with {change.renamed}" if change.renamed else change.how.removeprefix("name")
    return (
        change.name,
        change.what,
        _bytes(change, change.before, "new"),
        _bytes(change, change.after, "gone"),
        f"{change.growth:+,}" if change.growth else "",
        share,
        how,
    )


def _bytes(change: Change, size: int | None, missing: str) -> str:
    if size is None:
        return "" if change.how == missing else "unknown"
    return f"{size:,}"


def _peak(peak: Peak | None) -> str:
    if peak is None:
        return "none"
    where = "" if peak.step.operator is None else f" {peak.step.operator}"
    return f"operator{where} {printable(peak.op)}, {peak.bytes:,} bytes"


def difference_json(before: str, after: str, found: Difference) -> dict[str, Any]:
    return {
        "models": [before, after],
        "same": found.same,
        **{
            name: [_change(change) for change in getattr(found, name)]
            for name in ("arena", "sections", "flash", "layers", "tensors")
        },
        "peak": {
            "before": None if found.peak_before is None else asdict(found.peak_before),
            "after": None if found.peak_after is None else asdict(found.peak_after),
        },
    }


def _change(change: Change) -> dict[str, Any]:
    return {**asdict(change), "growth": change.growth}


__all__ = ["difference_json", "tell_difference"]
