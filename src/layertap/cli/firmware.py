"""``layertap firmware``: the source of a firmware that runs a model and sends its tensors."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from layertap.arena.target import KERNELS
from layertap.cli.invocation import program
from layertap.cli.options import json_option, taps_option
from layertap.cli.table import printable

if TYPE_CHECKING:
    from layertap.onchip import Firmware

PLATFORMS = ("generic", "arduino", "esp-idf", "zephyr", "pico", "qemu-mps2")

RULES = 4


@click.command(short_help="the source of a firmware that runs a model and sends its tensors")
@click.argument("model")
@taps_option("Send these from the start; without it, none until the host asks.")
@click.option("--platform", type=click.Choice(PLATFORMS), default="generic", show_default=True)
@click.option("-o", "--to", metavar="FOLDER", required=True, help="Where to write it.")
@click.option("--fixed", is_flag=True, help="These taps for ever, nothing comes from the host.")
@click.option("--outputs", is_flag=True, help="Make the taps outputs, read by name in C++.")
@click.option(
    "--rules",
    type=click.IntRange(0, 255),
    default=RULES,
    show_default=True,
    metavar="N",
    help="Room for so many slices and reductions that the host sets.",
)
@click.option("--arena", metavar="BYTES", help="Its size, as in 96K.  [default: worked out]")
@click.option("--kernels", type=click.Choice(KERNELS), help="Their library in your build.")
@click.option("--overwrite", is_flag=True, help="Also over files that are not layertap's.")
@json_option
def firmware(model: str, to: str, as_json: bool, **options: Any) -> None:
    """Write a folder that makes a board run MODEL, a .tflite file, and send any tensor of it.

    Its README.md leads from there to the first tensor on the screen.

    \b
    layertap firmware model.tflite --platform esp-idf -o firmware
    layertap firmware model.tflite -t 'op:CONV_2D' --fixed --platform arduino -o sketch
    """
    import layertap

    options["taps"] = options["taps"] or None
    made = layertap.generate_firmware(model, to, **options)
    if as_json:
        print(json.dumps({"model": model, **asdict(made), "folder": to}))
        return
    _tell(made, model)


def _tell(made: Firmware, model: str) -> None:
    lines = [f"arena     {made.arena:,} bytes: {made.arena_origin}"]
    lines.append(f"operators {', '.join(made.operators) or 'none'}")
    lines[1:1] = [f"unknown   {what}: it may be more" for what in made.arena_guessed]
    lines += [f"          {name}: write {function}()" for name, function in made.custom.items()]
    sent = f"{len(made.taps)} of {made.readable} taps" if made.taps else "nothing until it is asked"
    lines.append(f"sends     {sent}")
    lines += [f"written   {path}" for path in made.written]
    lines += [f"removed   {path}" for path in made.removed]
    lines += [f"left      {path}, which you have changed" for path in made.left]
    if not made.written:
        lines.append(f"unchanged all {len(made.unchanged)} files")
    for line in lines:
        print(printable(line))
    print(f"next      {shlex.quote(str(made.folder / 'README.md'))}{_then(made, model)}")


def _then(made: Firmware, model: str) -> str:
    """The command for when the board runs, from here; a port that is no program is a guess."""
    from layertap.firmware.generate.project import read_command

    port = made.port
    if port.startswith("exec:"):
        port = port.replace("build/", f"{shlex.quote(str(made.folder))}/build/")
    words = read_command(made.kind, model, port)
    return f", then {program()} {shlex.join(words)}" if words else ""


__all__ = ["firmware"]
