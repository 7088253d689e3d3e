"""Options that several verbs share, and what they amount to."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

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
    return click.option("-t", "--taps", metavar="SELECTOR", multiple=True, help=help)


runtime_options = _all(
    click.option("--runtime", metavar="NAME", help="keras, tensorflow, torch, litert or tflm."),
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


def runtime_choice(given: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The runtime's name and the options for :func:`layertap.open`. Raises SourceError."""
    options: dict[str, Any] = {}
    for name in ("kernels", "arena", "target"):
        if given[name] is not None:
            options[name] = given[name]
    if given["depth"] != "layers":  # other runtimes have but one
        options["depth"] = given["depth"]
    if given["allow_code"]:
        options["allow_code"] = True
    for text in given["further"]:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise SourceError(f"{text!r} is not an option", hint="write --option KEY=VALUE")
        options[key] = _literal(value)
    return given["runtime"], options


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
    return Given(scaling=scaling, **{name: given[name] for name in names})


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
    "given_inputs",
    "input_options",
    "json_option",
    "runtime_choice",
    "runtime_options",
    "taps_option",
    "traced",
]
