"""The arena over time in characters, as wide as the terminal."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from layertap.arena.memory_map import MemoryMap, Placement
from layertap.core.dtypes import Array
from layertap.core.units import format_bytes

ROWS = 16
"""Lines of the plot."""

AXIS = 10
"""Characters to the left of it."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SHADES, PLAIN_SHADES = "░▒▓", ".:+"
_NOBODY = -1


@dataclass(frozen=True, slots=True)
class TerminalPicture:
    """``lines`` of text. ``letters`` maps the names of what is alive at the peak to the letter
    that fills their bytes."""

    lines: tuple[str, ...]
    letters: dict[str, str]


def terminal_picture(memory: MemoryMap, width: int = 80, *, plain: bool = False) -> TerminalPicture:
    """The arena over time in at most ``width`` characters a line, ASCII only if ``plain``.

    Operators go across, offsets upwards. What is alive at the peak is drawn in letters.
    """
    planned = [p for p in memory.planned() if p.size]
    if not planned or memory.arena.peak is None:
        return TerminalPicture((), {})
    first = min([0, *(p.alive[0] for p in planned if p.alive)])
    scopes = max(p.alive[1] for p in planned if p.alive) - first + 1
    wide = max(1, min(max(width - AXIS, 8) // scopes, 6))
    columns = min(scopes * wide, max(width - AXIS, 8))
    peak = memory.arena.peak.step.scope
    letters = _letters(planned, peak)
    grid = _raster(planned, first, scopes, columns, memory.arena.head, letters)
    marks = _marks(planned, grid, letters, PLAIN_SHADES if plain else SHADES)
    lines = [_line(row, grid, marks, memory.arena.head, plain) for row in range(ROWS)]
    at = min(-(-(peak - first) * columns // scopes) + wide // 2, columns - 1)
    return TerminalPicture((*lines, *_axis(columns, at, memory, plain, width)), letters)


def _raster(
    planned: Sequence[Placement],
    first: int,
    scopes: int,
    columns: int,
    head: int,
    letters: Container[str],
) -> Array:
    """Which buffer has most of each cell. Where operators share a column, those in ``letters``
    are drawn before others."""
    grid = np.full((ROWS, columns), _NOBODY, np.int64)
    share = np.zeros((ROWS, columns))
    for i, placement in enumerate(planned):
        start, stop = placement.alive or (first, first)
        left = -(-(start - first) * columns // scopes)
        right = max(-(-(stop + 1 - first) * columns // scopes), left + 1)
        left = min(left, columns - 1)
        bottom = (placement.offset or 0) * ROWS / max(head, 1)
        top = bottom + placement.size * ROWS / max(head, 1)
        before = 1.0 if scopes > columns and placement.name in letters else 0.0
        for row in range(int(bottom), min(int(np.ceil(top)), ROWS)):
            part = min(top, row + 1) - max(bottom, row) + before
            cells = slice(left, right)
            wins = share[row, cells] < part
            grid[row, cells][wins] = i
            share[row, cells][wins] = part
    return grid


def _letters(planned: Sequence[Placement], peak: int) -> dict[str, str]:
    """A letter for each buffer that is alive at the peak, by falling size; then small letters."""
    alive = [p for p in planned if p.alive and p.alive[0] <= peak <= p.alive[1]]
    ranked = sorted(alive, key=lambda p: -p.size)
    signs = LETTERS + LETTERS.lower()
    return {p.name: signs[min(i, len(signs) - 1)] for i, p in enumerate(ranked)}


def _marks(
    planned: Sequence[Placement], grid: Array, letters: dict[str, str], shades: str
) -> dict[int, str]:
    """A character for each buffer: its letter, or a shade that none of its neighbours has."""
    near: dict[int, set[int]] = {}
    for one, other in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        touching = (one != other) & (one != _NOBODY) & (other != _NOBODY)
        pairs = np.unique(np.stack([one[touching], other[touching]], 1), axis=0)
        for a, b in pairs.tolist():
            near.setdefault(a, set()).add(b)
            near.setdefault(b, set()).add(a)
    marks = {_NOBODY: " "}
    for i in np.unique(grid).tolist():
        if i == _NOBODY:
            continue
        taken = {marks.get(j) for j in near.get(i, ())}
        free = next((shade for shade in shades if shade not in taken), shades[0])
        marks[i] = letters.get(planned[i].name, free)
    return marks


def _line(row: int, grid: Array, marks: dict[int, str], head: int, plain: bool) -> str:
    cells = grid[ROWS - 1 - row]
    top = head * (ROWS - row) // ROWS
    label = format_bytes(top) if row % 4 == 0 else ""
    edge = "|" if plain else ("┤" if label else "│")
    return f"{label:>{AXIS - 2}} {edge}{''.join(marks[i] for i in cells.tolist())}".rstrip()


def _axis(columns: int, at: int, memory: MemoryMap, plain: bool, width: int) -> list[str]:
    """The bottom edge and, below the column of the peak, what it is."""
    dash, corner, arrow = ("-", "+", "^") if plain else ("─", "└", "▲")
    peak = memory.arena.peak
    assert peak is not None
    edge = f"{'0 B':>{AXIS - 2}} {corner}{dash * columns}"
    which = "" if peak.step.operator is None else f" {peak.step.operator}"
    text = f"peak at operator{which} {peak.op}, {peak.bytes:,} bytes alive"
    start = AXIS + at
    if start + 2 + len(text) <= width:
        return [edge, f"{' ' * start}{arrow} {text}"]
    before = max(start - len(text) - 1, 0)
    return [edge, f"{' ' * before}{text} {arrow}" if start > len(text) else f"{arrow} {text}"]


__all__ = ["TerminalPicture", "terminal_picture"]
