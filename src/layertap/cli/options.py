"""Options that several verbs share, and what they amount to."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from layertap.cli import completion
from layertap.errors import SourceError

if TYPE_CHECKING:
    from layertap.api import Model
    from layertap.cli.inputs.given import Given
    from layertap.core.graph import Graph

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]


def _all(*options: Decorator) -> Decorator:
    """The options in the order in which the help shows them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def taps_option(help: str) -> Decorator:
    return click.option(
        "-t",
        "--taps",
        metavar="SELECTOR",
        multiple=True,
        help=help,
        shell_complete=completion.taps,
    )


source_argument = click.argument("source", shell_complete=completion.files)
"""The model: a file, or ``MODULE:NAME``."""


board_options = _all(
    click.option("--baud", type=int, metavar="N", help="Of a serial port.  [default: 115200]"),
    click.option(
        "--slices",
        metavar="[SELECTOR=]FIRST:STOP",
        multiple=True,
        help="Have the board send these elements only. Repeat for other taps.",
    ),
    click.option(
        "--reduce",
        metavar="[SELECTOR=]FORM",
        multiple=True,
        help="Have it send summary (smallest, largest, mean), or 'histogram BINS LOW HIGH'.",
    ),
    click.option("--timeout", type=float, metavar="SECONDS", help="How long to wait for it."),
)
"""How to speak to a board, and what it sends of a tensor."""

runtime_options = _all(
    click.option(
        "--runtime",
        metavar="NAME",
        help="keras, tensorflow, torch, litert, tflm or device.",
        shell_complete=completion.runtimes,
    ),
    click.option("--kernels", metavar="NAME", help="litert: default, builtin or reference."),
    click.option("--arena", metavar="BYTES", help="tflm: size of the arena, as in 96K."),
    click.option("--target", metavar="NAME", help="tflm: the chip that --arena is of."),
    click.option(
        "--depth",
        type=click.Choice(["layers", "ops"]),
        default="layers",
        help="keras: ops lists each operation inside the layers too.  [default: layers]",
    ),
    click.option("--allow-code", is_flag=True, help="Open files that hold code (trusted ones)."),
    click.option(
        "--port",
        metavar="PORT",
        help="device: /dev/ttyACM0, tcp://HOST:PORT, or exec:COMMAND for a program.",
        shell_complete=completion.ports,
    ),
    board_options,
    click.option(
        "--option",
        "further",
        metavar="KEY=VALUE",
        multiple=True,
        help="Any other option of the runtime.",
    ),
)
"""How to open a model: the runtime and its own options."""

input_options = _all(
    click.option(
        "-i",
        "--input",
        "files",
        metavar="[NAME=]FILE",
        multiple=True,
        help=".npy, .npz, image, .wav, .bin, a folder or glob of them, or MODULE:FUNCTION that "
        "yields batches. Repeat for more samples, or for more inputs with NAME=.",
        shell_complete=completion.files,
    ),
    click.option("--random", type=click.IntRange(0), metavar="SEED", help="Uniform random inputs."),
    click.option("--samples", type=int, metavar="N", help="How many random ones.  [default: 1]"),
    click.option("--batch-size", type=int, default=32, show_default=True, metavar="N"),
    click.option("--scale", metavar="X", help="Feed number * X + offset, as in 1/255."),
    click.option("--offset", metavar="X", help="Feed number * scale + X, as in -128."),
    click.option("--resize", is_flag=True, help="Scale images to the model's size."),
    click.option("--hop", type=int, metavar="N", help=".wav, .bin: a sample every N values."),
    click.option("--dtype", metavar="NAME", help=".bin, random: dtype, if not the model's."),
    click.option(
        "--shape",
        "shapes",
        metavar="[NAME=]HxWxC",
        multiple=True,
        help="Shape of one sample where the model leaves it open.",
    ),
    click.option("--range", "value_range", metavar="LOW:HIGH", help="Range of random numbers."),
    click.option("--layout", type=click.Choice(["hwc", "chw"]), help="Images, if not clear."),
)
"""What to feed a model."""


batch_axis_option = click.option(
    "--batch-axis",
    "axes",
    metavar="SELECTOR=N|none",
    multiple=True,
    help="Which axis of these taps or inputs counts samples, where it is not axis 0 or not known.",
)


def runtime_choice(given: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The runtime's name and the options for :func:`layertap.open`. Raises SourceError."""
    options: dict[str, Any] = {}
    for name in ("kernels", "arena", "target", "port"):
        if given[name] is not None:
            options[name] = given[name]
    if given["depth"] != "layers":  # other runtimes have but one
        options["depth"] = given["depth"]
    if given["allow_code"]:
        options["allow_code"] = True
    options |= board_choice(given)
    for text in given["further"]:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise SourceError(f"{text!r} is not an option", hint="write --option KEY=VALUE")
        options[key] = _literal(value)
    return given["runtime"] or ("device" if given["port"] else None), options


def board_choice(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of :data:`board_options` that are given, as arguments. Raises SourceError."""
    found = {name: given[name] for name in ("baud", "timeout") if given[name] is not None}
    for name in ("slices", "reduce"):
        if given[name]:
            found[name] = _by_selector(given[name], f"--{name}")
    return found


def _by_selector(texts: Sequence[str], option: str) -> str | dict[str, str]:
    """``SELECTOR=TEXT`` several times, or one text for all."""
    pairs = [text.rpartition("=")[::2] for text in texts]
    if len(pairs) == 1 and not pairs[0][0]:
        return pairs[0][1]
    if not all(selector for selector, _ in pairs):
        raise SourceError(
            f"{option} is given more than once, and without a selector",
            hint=f"{option} 'SELECTOR=...' for some taps, or once for all",
        )
    return dict(pairs)


def given_inputs(given: Mapping[str, Any]) -> Given:
    """The options about inputs as one value. Raises FeedError."""
    from layertap.cli.inputs.given import Given, Scaling, parse_fraction

    names: tuple[str, ...] = (
        "files",
        "random",
        "samples",
        "batch_size",
        "resize",
        "hop",
        "dtype",
        "shapes",
        "value_range",
        "layout",
    )
    scale = parse_fraction(given["scale"], "--scale")
    scaling = Scaling(scale, parse_fraction(given["offset"], "--offset"))
    axes = batch_axes(given.get("axes", ()))
    return Given(scaling=scaling, batch_axis=axes, **{name: given[name] for name in names})


def batch_axes(texts: Sequence[str]) -> dict[str, int | None]:
    """``SELECTOR=N`` or ``SELECTOR=none`` by selector. Raises SourceError."""
    axes: dict[str, int | None] = {}
    for text in texts:
        selector, _, axis = text.rpartition("=")
        if not selector or not re.fullmatch(r"-?\d{1,3}|none", axis):
            raise SourceError(
                f"--batch-axis {text!r} does not say which axis",
                hint="write --batch-axis SELECTOR=N, or SELECTOR=none where no axis counts samples",
            )
        axes[selector] = None if axis == "none" else int(axis)
    return axes


def traced(model: Model, given: Mapping[str, Any]) -> Graph:
    """The graph of ``model``, completed by the first batch of the inputs where any are given.
    Raises FeedError."""
    if not given["files"] and given["random"] is None:
        return model.graph
    from layertap.cli.inputs import first_batch, read_inputs

    return model.trace(first_batch(read_inputs(given_inputs(given), model.session)))


def _literal(text: str) -> Any:
    """A number, truth value or None where the text is one, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text, text)


__all__ = [
    "batch_axes",
    "batch_axis_option",
    "board_choice",
    "board_options",
    "given_inputs",
    "input_options",
    "json_option",
    "runtime_choice",
    "runtime_options",
    "source_argument",
    "taps_option",
    "traced",
]
