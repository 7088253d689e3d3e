"""Tables that fit the terminal, and whole plain text where there is none."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

GAP = 2
NARROWEST = 24
"""Characters that a shortened column keeps."""


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
        """Print the table; on a terminal fitted to its width unless ``wide``."""
        if not sys.stdout.isatty():
            sys.stdout.write("\n".join(self.lines(None)) + "\n")
            return
        width = None if wide else shutil.get_terminal_size().columns
        head, *lines = self.lines(width)
        _print_styled(head, lines)
        self._explain(width)

    def lines(self, width: int | None) -> list[str]:
        """The heading and the rows, at most ``width`` characters long where that can be done."""
        kept = self._kept(width)
        widths = self._widths(kept, width)
        cells = [[column.title for column in self.columns], *self.rows]
        return ["  ".join(self._cells(row, kept, widths)).rstrip() for row in cells]

    def _cells(self, row: Sequence[str], kept: list[int], widths: dict[int, int]) -> list[str]:
        shown = []
        for i in kept:
            cell = shortened(row[i], widths[i])
            shown.append(cell.rjust(widths[i]) if self.columns[i].right else cell.ljust(widths[i]))
        return shown

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

    def _widths(self, kept: list[int], width: int | None) -> dict[int, int]:
        widths = {i: self._natural(i) for i in kept}
        if width is None:
            return widths
        over = sum(widths.values()) + GAP * (len(kept) - 1) - width
        for i in sorted(kept, key=lambda i: -widths[i]):
            spare = widths[i] - self._smallest(i)
            cut = max(0, min(spare, over))
            widths[i] -= cut
            over -= cut
        return widths

    def _explain(self, width: int | None) -> None:
        """Say that something was left out."""
        kept = self._kept(width)
        widths = self._widths(kept, width)
        held = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        dropped = [self.columns[i].title for i in held if i not in kept]
        cut = [self.columns[i].title for i in kept if widths[i] < self._natural(i)]
        told = [f"{' and '.join(dropped)} left out"] if dropped else []
        told += [f"{' and '.join(cut)} cut"] if cut else []
        if told:
            _print_dim(f"({', '.join(told)} to fit the terminal; --wide shows everything)")


def printable(text: str) -> str:
    """``text`` in one line without control characters, which names in a file may have."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def counted(number: int, noun: str) -> str:
    """``1 sample``, ``2 samples``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(text: str, width: int) -> str:
    """``text`` in ``width`` characters, its middle replaced by an ellipsis where it is longer."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def _print_styled(head: str, lines: Sequence[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(head, style="bold"))
    for line in lines:
        console.print(Text(line))


def _print_dim(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True, highlight=False).print(Text(text, style="dim"))


__all__ = ["Column", "Table", "counted", "printable", "shortened"]
