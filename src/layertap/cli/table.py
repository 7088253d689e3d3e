"""Tables that fit the terminal, and whole plain text where there is none."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import click

GAP = 2
NARROWEST = 24
"""Characters that a shortened column keeps."""

PIPED = 48
"""Characters of a cell that may be shortened, where there is no terminal whose width would say."""

JOINED = ";"
"""Between the names that a converter made one of, all those of the ops that it merged."""


@dataclass(frozen=True, slots=True)
class Column:
    """``right`` aligns numbers. ``drop``: on a narrow terminal, columns go in rising order of it;
    0 stays. ``shorten``: its cells may be cut in the middle."""

    title: str
    right: bool = False
    drop: int = 0
    shorten: bool = False


@dataclass(slots=True)
class Table:
    """Rows of text under columns; what would command the terminal is made visible."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = [[printable(cell) for cell in row] for row in self.rows]

    def show(self, *, wide: bool = False) -> None:
        """Print the table; unless ``wide`` fitted to the terminal, or without one all columns, with
        cells of a bounded length."""
        terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if terminal and not wide else None
        cell = None if terminal or wide else PIPED
        head, *lines = self.lines(width, cell)
        click.secho(head, bold=True)
        for line in lines:
            click.echo(line)
        left_out = self._left_out(width, cell)
        if left_out:
            told = f"({left_out}; --wide shows everything)"
            click.secho(told, dim=True, err=not terminal)

    def lines(self, width: int | None, cell: int | None = None) -> list[str]:
        """The heading and the rows, at most ``width`` characters long where that can be done, and
        cells that may be shortened at most ``cell``."""
        kept = self._kept(width)
        widths = self._widths(kept, width, cell)
        columns = [self._column(i, widths[i]) for i in kept]
        return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]

    def _column(self, i: int, width: int) -> Iterator[str]:
        """The heading and the cells of a column, all of this width."""
        cells = told_apart([row[i] for row in self.rows], width)
        for cell in (self.columns[i].title, *cells):
            yield cell.rjust(width) if self.columns[i].right else cell.ljust(width)

    def _natural(self, i: int) -> int:
        return max(len(self.columns[i].title), *(len(row[i]) for row in self.rows), 0)

    def _smallest(self, i: int) -> int:
        natural = self._natural(i)
        return min(natural, NARROWEST) if self.columns[i].shorten else natural

    def _kept(self, width: int | None) -> list[int]:
        """Columns that hold anything and fit. One that can be shortened is shortened before
        another is dropped."""
        kept = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        droppable = sorted((self.columns[i].drop, i) for i in kept if self.columns[i].drop)
        while width is not None and droppable and self._total(kept) > width:
            kept.remove(droppable.pop(0)[1])
        return kept

    def _total(self, kept: list[int]) -> int:
        return sum(self._smallest(i) for i in kept) + GAP * (len(kept) - 1)

    def _widths(self, kept: list[int], width: int | None, cell: int | None) -> dict[int, int]:
        widths = {i: self._natural(i) for i in kept}
        if cell is not None:
            widths |= {i: min(widths[i], cell) for i in kept if self.columns[i].shorten}
        if width is None:
            return widths
        over = sum(widths.values()) + GAP * (len(kept) - 1) - width
        for i in sorted(kept, key=lambda i: -widths[i]):
            cut = max(0, min(widths[i] - self._smallest(i), over))
            widths[i] -= cut
            over -= cut
        return widths

    def _left_out(self, width: int | None, cell: int | None) -> str:
        """What of the table is not shown; empty where all is."""
        kept = self._kept(width)
        widths = self._widths(kept, width, cell)
        held = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        dropped = [self.columns[i].title for i in held if i not in kept]
        cut = [self.columns[i].title for i in kept if widths[i] < self._natural(i)]
        told = [f"{' and '.join(dropped)} left out"] if dropped else []
        told += [f"{' and '.join(cut)} cut"] if cut else []
        return ", ".join(told) + (" to fit the terminal" if told and width is not None else "")


def printable(text: str) -> str:
    """``text`` in one line without control characters, which names in a file may have."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def counted(number: int, noun: str) -> str:
    """``1 sample``, ``2 samples``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def told_apart(texts: Sequence[str], width: int) -> list[str]:
    """``texts`` in ``width`` characters, so that different ones stay different where that can be
    done: by the first of joined names, else by the last of them too, else by where they part."""
    short = {text: _first_of_joined(text, width) for text in texts}
    for alike in _look_alikes(short):
        short |= {text: _first_and_last_of_joined(text, width) for text in alike}
    for alike in _look_alikes(short):
        short |= {text: _where_they_part(text, width, alike) for text in alike}
    return [short[text] for text in texts]


def _look_alikes(short: Mapping[str, str]) -> list[list[str]]:
    """Groups of different texts that are shown as one."""
    groups: dict[str, list[str]] = {}
    for text, shown in short.items():
        groups.setdefault(shown, []).append(text)
    return [alike for alike in groups.values() if len(alike) > 1]


def _first_of_joined(text: str, width: int) -> str:
    """``stem_relu/Relu +3`` of four joined names that are too long."""
    first, *others = text.split(JOINED)
    if len(text) <= width or not others:
        return shortened(text, width)
    more = f" +{len(others)}"
    return shortened(first, width - len(more)) + more


def _first_and_last_of_joined(text: str, width: int) -> str:
    """``stem_relu/Relu…stem/Conv2D1``; the last of joined names often ends in a number."""
    first, *others = text.split(JOINED)
    if len(text) <= width or not others:
        return shortened(text, width)
    tail = others[-1][-(width // 3) :]
    return f"{shortened(first, width - len(tail) - 1)}…{tail}"


def _where_they_part(text: str, width: int, alike: Sequence[str]) -> str:
    """The beginning, and what is around the first character in which ``alike`` differ."""
    if len(text) <= width:
        return text
    head = width // 3
    rest = width - head - 1
    same = len(os.path.commonprefix(list(alike)))  # noqa: RUF071 (characters are meant)
    start = same - rest // 2
    start = max(head, min(start, len(text) - rest))
    return f"{text[:head]}…{text[start : start + rest]}"


def shortened(text: str, width: int) -> str:
    """``text`` in ``width`` characters, its middle replaced by an ellipsis where it is longer."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


__all__ = ["Column", "Table", "counted", "printable", "shortened", "told_apart"]
