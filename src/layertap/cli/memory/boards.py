"""Boards and verdicts as tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from layertap.arena.boards import Board
from layertap.arena.fitting import RegionVerdict, Verdict
from layertap.arena.picture.page import Grid
from layertap.cli.table import Column, Table
from layertap.core.units import format_bytes


def board_table(boards: Mapping[str, Board]) -> Table:
    columns = (
        Column("name"),
        Column("chip", drop=2),
        Column("target", drop=1),
        Column("model in"),
        Column("bytes", right=True),
        Column("arena in"),
        Column("bytes", right=True),
        Column("other memories", drop=3, shorten=True),
    )
    rows = []
    for name, board in boards.items():
        model, arena = board[board.model], board[board.arena]
        rest = (r for r in board.regions if r.name not in (board.model, board.arena))
        others = ", ".join(f"{r.name} {format_bytes(r.usable)}" for r in rest)
        places = (model.name, f"{model.usable:,}", arena.name, f"{arena.usable:,}")
        rows.append((name, board.chip, board.target, *places, others))
    return Table(columns, rows)


def boards_json(boards: Mapping[str, Board]) -> dict[str, Any]:
    return {"boards": {name: asdict(board) for name, board in boards.items()}}


def headline(verdict: Verdict) -> str:
    """The verdict in one line."""
    if verdict.fits:
        return f"fits {verdict.board.name}"
    short = ", ".join(
        f"{-one.margin:,} bytes are missing in {one.region.name}"
        for one in verdict.regions
        if not one.fits
    )
    return f"does not fit {verdict.board.name}: {short}"


def verdict_table(verdict: Verdict) -> Table:
    columns = (
        Column("memory"),
        Column("holds"),
        Column("usable", right=True),
        Column("needed", right=True),
        Column("left", right=True),
        Column("note", drop=1, shorten=True),
    )
    rows = [_row(one) for one in verdict.regions]
    return Table(columns, rows)


def verdict_grid(verdict: Verdict) -> Grid:
    """The table for a page."""
    found = verdict_table(verdict)
    short = frozenset(i for i, one in enumerate(verdict.regions) if not one.fits)
    heads = [column.title for column in found.columns]
    return Grid(heads, found.rows, frozenset({2, 3, 4}), short)


def _row(one: RegionVerdict) -> tuple[str, ...]:
    region = one.region
    name = f"{region.name} (external)" if region.external else region.name
    holds = " + ".join(need.what for need in one.needs) or "-"
    needed = f"{one.needed:,}" if one.needs else ""
    return name, holds, f"{region.usable:,}", needed, f"{one.margin:,}", region.note


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "name": verdict.board.name,
        "chip": verdict.board.chip,
        "source": verdict.board.source,
        "fits": verdict.fits,
        "regions": [
            {
                "name": one.region.name,
                "kind": one.region.kind,
                "external": one.region.external,
                "usable": one.region.usable,
                "needs": {need.what: need.bytes for need in one.needs},
                "margin": one.margin,
                "fits": one.fits,
            }
            for one in verdict.regions
        ],
        "advice": list(verdict.advice),
        "notes": list(verdict.notes),
    }


__all__ = [
    "board_table",
    "boards_json",
    "headline",
    "verdict_grid",
    "verdict_json",
    "verdict_table",
]
