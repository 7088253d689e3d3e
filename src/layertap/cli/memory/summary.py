"""A memory map as a person reads it: the verdict first."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from layertap.arena.fitting import Verdict, shared_notes
from layertap.arena.measured import Compared, Measured
from layertap.arena.memory_map import MemoryMap, Placement
from layertap.arena.picture.terminal import AXIS, ROWS, TerminalPicture, terminal_picture
from layertap.arena.sites import DURING, native
from layertap.cli.memory.boards import headline, verdict_table
from layertap.cli.memory.sharing import sharers
from layertap.cli.table import Column, Table, printable
from layertap.core.graph import format_shape
from layertap.core.units import format_bytes

WITHOUT_TERMINAL = 100
"""Characters a line has where there is no terminal to ask."""

COLOURS = ("bright_cyan", "bright_yellow", "bright_magenta", "bright_green", "bright_blue")
"""Of what is alive at the peak, on a terminal."""

NAMED = 3
"""Sharers that the table names."""


def tell(
    memory: MemoryMap,
    verdict: Verdict | None,
    measured: Measured | None,
    options: Mapping[str, Any],
) -> None:
    """Print the verdict, what is alive at the peak, the picture, and the totals."""
    wide = options["wide"]
    for line in facts(memory, verdict):
        print(printable(line))
    if verdict is not None:
        print()
        verdict_table(verdict).show(wide=wide)
    if measured is not None:
        _tell_measured(measured, wide)
    picture = _picture(memory) if options["picture"] else TerminalPicture((), {})
    _tell_peak(memory, picture, wide)
    if picture.lines:
        print()
        _show(picture)
    print()
    section_table(memory).show(wide=wide)
    print(_totals(memory))
    if options["layers"]:
        print()
        layer_table(memory).show(wide=wide)
    if options["tensors"]:
        print()
        tensor_table(memory).show(wide=wide)


def facts(memory: MemoryMap, verdict: Verdict | None = None) -> list[str]:
    """What matters, one fact a line."""
    arena, flash = memory.arena, memory.flash
    lines = [] if verdict is None else [headline(verdict)]
    lines += [f"       {line}" for line in verdict.advice] if verdict else []
    least = "" if arena.exact else "at least "
    lines.append(f"arena  {least}{_size(arena.minimum)}: {_why(memory)}")
    lines.append(f"       {_layout(memory)}")
    lines.append(f"flash  {_size(flash.total)}, {flash.weights:,} of them weights")
    lines.append(f"target {memory.target}, TensorFlow Lite Micro {memory.version}")
    lines += [f"unknown: {what}" for what in arena.unknown]
    notes = shared_notes(memory) if verdict is None else verdict.notes
    lines += [f"note: {line}" for line in notes]
    return lines


def _size(count: int) -> str:
    return f"{count:,} bytes" + (f" ({format_bytes(count)})" if count >= 1024 else "")


def _why(memory: MemoryMap) -> str:
    arena = memory.arena
    parts = f"{arena.head:,} of activations + {arena.tail:,} that persist"
    if arena.reason in DURING:
        return f"needed {DURING[arena.reason]}; after it {parts} = {arena.used:,} are used"
    over = arena.minimum - arena.used
    return parts + (f" + {over:,} of rounding" if over else "")


def _layout(memory: MemoryMap) -> str:
    over = memory.arena.head - memory.arena.lower_bound
    if over <= 0:
        return f"no layout has less than these {memory.arena.head:,} of activations"
    return (
        f"a layout cannot have less than {memory.arena.lower_bound:,} of activations; this one has "
        f"{over:,} more ({over / max(memory.arena.lower_bound, 1):.1%})"
    )


def _picture(memory: MemoryMap) -> TerminalPicture:
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else WITHOUT_TERMINAL
    return terminal_picture(memory, width, plain=not _draws_blocks())


def _show(picture: TerminalPicture) -> None:
    """Print the picture; on a terminal each letter has a colour."""
    if not sys.stdout.isatty():
        print("\n".join(map(printable, picture.lines)))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    colours = {sign: COLOURS[i % len(COLOURS)] for i, sign in enumerate(picture.letters.values())}
    for line in picture.lines[:ROWS]:
        text = Text().append(line[:AXIS], style="dim")
        for sign, run in groupby(line[AXIS:]):
            style = f"bold black on {colours[sign]}" if sign in colours else "dim"
            text.append("".join(run), style=style)
        console.print(text)
    for line in picture.lines[ROWS:]:
        console.print(Text(printable(line), style="dim"))


def _draws_blocks() -> bool:
    try:
        "░▒▓┤│└─▲".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _tell_peak(memory: MemoryMap, picture: TerminalPicture, wide: bool) -> None:
    peak = memory.arena.peak
    if peak is None:
        return
    where = "" if peak.step.operator is None else f" {peak.step.operator}"
    print(f"\nalive at the peak, operator{where} {printable(peak.op)}: {peak.bytes:,} bytes")
    columns = (
        Column(""),
        Column("#"),
        Column("name", shorten=True),
        Column("dtype", drop=2),
        Column("shape", drop=1),
        Column("bytes", right=True),
        Column("offset", right=True),
    )
    alive = set(peak.alive)
    found = sorted((p for p in memory.planned() if p.name in alive), key=lambda p: -p.size)
    rows = [
        (
            picture.letters.get(p.name, ""),
            native(p),
            p.name,
            p.dtype,
            format_shape(p.shape) if p.index is not None else "scratch",
            f"{p.size:,}",
            f"{p.offset:,}",
        )
        for p in found
    ]
    Table(columns, rows).show(wide=wide)


def section_table(memory: MemoryMap) -> Table:
    """What the arena is used for."""
    columns = (
        Column("arena"),
        Column("for"),
        Column("number", right=True),
        Column("bytes", right=True),
        Column("note", drop=1, shorten=True),
    )
    planned = memory.planned()
    scratch = sum(p.index is None for p in planned)
    note = f"{scratch} of them scratch" if scratch else ""
    head = ("head", "activations", f"{len(planned):,}", f"{memory.arena.head:,}", note)
    rows = [head] + [
        ("tail", s.name, f"{s.count:,}", "unknown" if s.bytes is None else f"{s.bytes:,}", s.note)
        for s in memory.arena.sections
    ]
    return Table(columns, rows)


def _totals(memory: MemoryMap) -> str:
    arena = memory.arena
    homes = [p.home for p in memory if p.index is not None]
    words = {"arena": "in the arena", "flash": "in flash", "persistent": "persistent"}
    words |= {"external": "in another file", "none": "without bytes"}
    told = [f"{homes.count(home)} {word}" for home, word in words.items() if home in homes]
    return (
        f"head {arena.head:,} + tail {arena.tail:,} = {arena.used:,} bytes used; "
        f"tensors: {', '.join(told)}"
    )


def layer_table(memory: MemoryMap) -> Table:
    """The flash of each layer that has weights."""
    columns = (
        Column("layer", shorten=True),
        Column("op", drop=1),
        Column("bytes", right=True),
        Column("share", right=True),
        Column("shared", right=True),
    )
    rows = [
        (
            layer.name,
            layer.op,
            f"{layer.bytes:,}",
            f"{layer.bytes / max(memory.flash.total, 1):.1%}",
            f"{layer.shared:,}" if layer.shared else "",
        )
        for layer in memory.flash.layers
        if layer.bytes or layer.shared
    ]
    return Table(columns, rows)


def tensor_table(memory: MemoryMap) -> Table:
    """Every tensor and scratch buffer."""
    columns = (
        Column("#"),
        Column("name", shorten=True),
        Column("op", drop=2),
        Column("dtype", drop=3),
        Column("shape", drop=4),
        Column("home"),
        Column("bytes", right=True),
        Column("offset", right=True),
        Column("alive"),
        Column("shares bytes with", drop=1),
    )
    shared = sharers(memory)
    return Table(columns, [_tensor(p, shared.get(p.name, [])) for p in memory])


def _tensor(p: Placement, shared: list[str]) -> tuple[str, ...]:
    more = f" +{len(shared) - NAMED}" if len(shared) > NAMED else ""
    return (
        native(p),
        p.name,
        p.op,
        p.dtype,
        format_shape(p.shape) if p.index is not None else "scratch",
        p.home,
        f"{p.size:,}",
        "" if p.offset is None else f"{p.offset:,}",
        "" if p.alive is None else f"{p.alive[0]}-{p.alive[1]}" if p.alive[0] >= 0 else "never",
        ", ".join(shared[:NAMED]) + more,
    )


def _tell_measured(measured: Measured, wide: bool) -> None:
    columns = (
        Column("", shorten=True),
        Column("predicted", right=True),
        Column("measured", right=True),
        Column("difference", right=True),
    )
    rows = [
        (
            row.name,
            "" if row.predicted is None else f"{row.predicted:,}",
            f"{row.measured:,}",
            _apart(row),
        )
        for row in measured.rows
    ]
    print()
    Table(columns, rows).show(wide=wide)
    for note in measured.notes:
        print(f"note: {note}")


def _apart(row: Compared) -> str:
    if row.predicted is None:
        return ""
    return f"{row.measured - row.predicted:+,}" if row.measured != row.predicted else "none"


__all__ = ["facts", "layer_table", "section_table", "tell", "tensor_table"]
