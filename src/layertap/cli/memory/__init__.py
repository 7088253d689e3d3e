"""``layertap memory``: where every byte of a model lives."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layertap.arena.boards import TARGETS, Board, board_names, load_board
from layertap.arena.target import KERNELS, REFERENCE
from layertap.cli import completion
from layertap.cli.options import json_option, taps_option
from layertap.errors import LayertapError, StoreError

if TYPE_CHECKING:
    from layertap.arena.fitting import Verdict
    from layertap.arena.log import DeviceLog
    from layertap.arena.measured import Measured
    from layertap.arena.memory_map import MemoryMap

SHARINGS = ("none", "in-place", "overlapping")
"""What --share takes: whether results may lie over operands that nothing needs afterwards."""

PICTURES = ("svg", "flash_svg", "html")
"""The options that name a file to write."""

DOES_NOT_FIT = 1
"""The exit status where --board says so."""


@click.command(short_help="where every byte of a .tflite model lives, and whether it fits")
@click.argument("model", required=False)
@click.argument("other", required=False, metavar="[OTHER]")
@click.option("--target", type=click.Choice(TARGETS), help="Chip family.  [default: host]")
@click.option("--tflm", "version", metavar="VERSION", help="Version of TensorFlow Lite Micro.")
@click.option("--kernels", type=click.Choice(KERNELS), default=REFERENCE, help="Their library.")
@click.option(
    "--board",
    metavar="NAME|FILE.toml",
    shell_complete=completion.boards,
    help="Does it fit? Sets the target, too.",
)
@click.option("--boards", "list_boards", is_flag=True, help="List the boards that are known.")
@click.option("--log", metavar="FILE", help="What a device printed, beside the prediction.")
@click.option("--tensors", is_flag=True, help="Every tensor: home, offset, lifetime, sharers.")
@click.option("--layers", is_flag=True, help="The flash of every layer.")
@click.option("--picture/--no-picture", default=True, help="Draw the arena in characters.")
@click.option("--svg", metavar="FILE", help="Write the arena over time as a picture.")
@click.option("--flash-svg", metavar="FILE", help="Write the flash by layer as a picture.")
@click.option("--html", metavar="FILE", help="Write one page with all of it.")
@taps_option("Read these, too; with --arena, in as many passes as that takes.")
@click.option("--arena", metavar="BYTES", help="The size that there is, as in 96K.")
@click.option("--price", is_flag=True, help="What each tap adds to the arena.")
@click.option("--optimize", is_flag=True, help="Find a layout that needs less of the arena.")
@click.option("--share", type=click.Choice(SHARINGS), default="in-place", help="With --optimize.")
@click.option("-o", "--output", metavar="FILE", help="Write the model with the better layout.")
@click.option("--wide", is_flag=True, help="Do not fit tables to the terminal.")
@json_option
@click.pass_context
def memory(
    ctx: click.Context, /, model: str | None, other: str | None, list_boards: bool, **options: Any
) -> None:
    """Tell from MODEL, a .tflite file, how large an arena TensorFlow Lite Micro needs and what
    lies where in it; with OTHER, what changed from one model to the other.

    \b
    layertap memory model.tflite --board arduino-nano-33-ble-sense
    layertap memory float.tflite int8.tflite --target cortex-m
    layertap memory model.tflite --taps '*' --arena 96K
    """
    if list_boards:
        _list_boards(options)
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.", ctx)
    if options["output"] and not options["optimize"]:
        raise click.UsageError("-o writes what --optimize finds; give that, too.", ctx)
    asked = [f"--{name}" for name in ("price", "arena", "optimize") if options[name]]
    if len(asked) > 1:
        raise click.UsageError(f"{asked[0]} does not go with {asked[1]}.", ctx)
    if other is not None:
        _compare(model, other, options)
        return
    if options["price"] or options["arena"]:
        from layertap.cli.memory.tapping import price, split

        tell = price if options["price"] else split
        tell(model, _chip(options, None, None), options)
        return
    if options["optimize"]:
        from layertap.cli.memory.optimized import optimize

        optimize(model, _chip(options, None, None), options)
        return
    status = _tell(model, options)
    if status:
        ctx.exit(status)


def _list_boards(options: Mapping[str, Any]) -> None:
    from layertap.cli.memory.boards import board_table, boards_json

    boards = {name: load_board(name) for name in board_names()}
    if options["as_json"]:
        print(json.dumps(boards_json(boards)))
        return
    board_table(boards).show(wide=options["wide"])


def _chip(options: Mapping[str, Any], board: Board | None, log: DeviceLog | None) -> dict[str, Any]:
    """The arguments that say for which chip, and with which allocator the log was made."""
    return {
        "target": options["target"] or (board.target if board else "host"),
        "version": options["version"],
        "kernels": options["kernels"],
        "recording": True if log is not None and log.allocations is not None else None,
    }


def _tell(path: str, options: Mapping[str, Any]) -> int:
    """One model; the exit status."""
    import layertap

    _check_files(path, options)
    board = load_board(options["board"]) if options["board"] else None
    log = _log(options["log"]) if options["log"] else None
    chip = _chip(options, board, log)
    found = layertap.memory(path, taps=options["taps"] or None, **chip)
    measured = None if log is None else _measured(found, log, chip)
    if measured is not None:
        found = measured.memory
    verdict = _verdict(found, board)
    written = _write(found, verdict, Path(path).name, options)
    if options["as_json"]:
        from layertap.cli.memory.documents import document

        print(json.dumps(document(path, found, verdict, measured, written)))
    else:
        from layertap.cli.memory.summary import tell

        tell(found, verdict, measured, options)
        for file in written:
            print(f"written: {file}")
    return DOES_NOT_FIT if verdict is not None and not verdict.fits else 0


def _verdict(found: MemoryMap, board: Board | None) -> Verdict | None:
    from layertap.arena.fitting import verdict

    return None if board is None else verdict(found, board)


def _log(path: str) -> DeviceLog:
    from layertap.arena.log import parse_log

    return parse_log(Path(path).read_bytes().decode("utf-8", errors="replace"))


def _measured(found: MemoryMap, log: DeviceLog, chip: Mapping[str, Any]) -> Measured:
    from layertap.arena.measured import measured
    from layertap.arena.target import load_target

    arguments = dict(chip)
    return measured(found, log, load_target(arguments.pop("target"), **arguments))


def _check_files(model: str, options: Mapping[str, Any]) -> None:
    """Refuse to write a picture over what is read, or over another picture."""
    taken = {os.path.realpath(model): "the model itself"}
    if options["log"]:
        taken[os.path.realpath(options["log"])] = "the log itself"
    for option in PICTURES:
        path = options[option]
        if path and (what := taken.get(os.path.realpath(path))):
            raise StoreError(f"{path!r} is {what}", hint="write the picture to another file")
        if path:
            taken[os.path.realpath(path)] = f"what --{option.replace('_', '-')} writes, too"


def _write(
    found: MemoryMap, verdict: Verdict | None, title: str, options: Mapping[str, Any]
) -> list[str]:
    """Write the pictures that are asked for; their paths."""
    from layertap.arena.picture.drawing import document
    from layertap.arena.picture.flash import flash_bars
    from layertap.arena.picture.page import page
    from layertap.arena.picture.timeline import timeline
    from layertap.cli.memory.boards import verdict_grid
    from layertap.cli.memory.summary import facts

    tables = {} if verdict is None else {"Board": verdict_grid(verdict)}
    made: dict[str, Callable[[], str]] = {
        "svg": lambda: document(timeline(found, title)),
        "flash_svg": lambda: document(flash_bars(found, title)),
        "html": lambda: page(found, title, facts(found, verdict), tables),
    }
    wanted = {options[name]: make for name, make in made.items() if options[name]}
    for path, make in wanted.items():
        Path(path).write_text(make(), encoding="utf-8")
    return list(wanted)


def _compare(before: str, after: str, options: Mapping[str, Any]) -> None:
    """Two models."""
    import layertap
    from layertap.arena.difference import difference
    from layertap.cli.memory.changes import difference_json, tell_difference

    single = (
        "taps",
        "arena",
        "price",
        "optimize",
        "board",
        "log",
        *PICTURES,
        "tensors",
        "layers",
    )
    given = [f"--{name.replace('_', '-')}" for name in single if options[name]]
    if given:
        raise LayertapError(
            f"{given[0]} is about one model, and two are given",
            hint="leave it out to see what changed between them",
        )
    chip = _chip(options, None, None)
    found = difference(layertap.memory(before, **chip), layertap.memory(after, **chip))
    if options["as_json"]:
        print(json.dumps(difference_json(before, after, found)))
        return
    tell_difference(found, wide=options["wide"])


__all__ = ["memory"]
