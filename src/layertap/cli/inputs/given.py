"""What the command line says about inputs, and what the model wants."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from layertap.core.dtypes import Array, integer_limits, is_integer, is_real, numpy_dtype
from layertap.core.feeds import InputSpec
from layertap.core.graph import format_shape
from layertap.core.protocols import Session
from layertap.core.quantization import Quantization
from layertap.core.select import compile_selector
from layertap.errors import FeedError

Shape = tuple[int | None, ...]

_SHAPE = re.compile(r"[1-9]\d*(?:[xX][1-9]\d*)*")


@dataclass(frozen=True, slots=True)
class Scaling:
    """``number * scale + offset`` for every number that a file holds; exact for integers.

    ``codes`` is the dtype of a quantized input: integers that come out are its codes, integers
    that go in unscaled may be that or real numbers, and are refused.
    """

    scale: Fraction | None = None
    offset: Fraction | None = None
    codes: np.dtype[Any] | None = None

    @property
    def given(self) -> bool:
        return self.scale is not None or self.offset is not None

    def __call__(self, numbers: Array) -> Array:
        """The numbers scaled. Raises FeedError."""
        whole = numbers.dtype.kind in "iub"
        if not self.given:
            if whole and self.codes is not None and numbers.dtype != self.codes:
                raise _ambiguous(numbers.dtype, self.codes)
            return numbers
        scale = Fraction(1) if self.scale is None else self.scale
        offset = self.offset or Fraction(0)
        if whole and scale.denominator == offset.denominator == 1:
            exact: Array = numbers.astype(np.int64) * int(scale) + int(offset)
            return exact if self.codes is None else _as_codes(exact, self.codes)
        scaled: Array = numbers.astype(np.float64) * float(scale) + float(offset)
        return scaled.astype(np.float32)


def _ambiguous(dtype: np.dtype[Any], codes: np.dtype[Any]) -> FeedError:
    return FeedError(
        f"the file holds {dtype}: are these codes of {codes}, or real numbers to be quantized?",
        hint="--offset 0 feeds codes, --offset -128 codes from unsigned bytes, --scale 1/255 real "
        "numbers from 0 to 1; a file of floats holds real numbers",
    )


def _as_codes(numbers: Array, dtype: np.dtype[Any]) -> Array:
    """Integers as the codes that they are. Raises FeedError where one of them is none."""
    lowest, highest = integer_limits(dtype)
    if numbers.size and (numbers.min() < lowest or numbers.max() > highest):
        raise FeedError(
            f"whole numbers are codes, and with --scale and --offset they go from {numbers.min()} "
            f"to {numbers.max()}; those of {dtype} are {lowest} to {highest}",
            hint="choose an --offset that makes them fit, or a --scale such as 1/255, which gives "
            "real numbers",
        )
    return numbers.astype(dtype)


@dataclass(frozen=True, slots=True)
class Given:
    """The options of the command line that concern inputs, as texts and numbers.

    files: paths, folders, globs, ``NAME=FILE`` or one ``module:function``. random: a seed.
    samples: how many random samples. shapes: ``[NAME=]8x8x1`` of one sample, without batch.
    dtype: element type of raw and random inputs. hop: numbers between the starts of windows.
    layout: ``hwc`` or ``chw`` for images where the model's shape does not tell.
    value_range: ``LOW:HIGH`` of random numbers. batch_axis: selectors of inputs, each with the
    axis that counts samples, or None where none does.
    """

    files: Sequence[str] = ()
    random: int | None = None
    samples: int | None = None
    batch_size: int = 32
    shapes: Sequence[str] = ()
    dtype: str | None = None
    scaling: Scaling = field(default_factory=Scaling)
    hop: int | None = None
    resize: bool = False
    layout: str | None = None
    value_range: str | None = None
    batch_axis: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the model takes as one sample of one input; ``dtype`` and ``shape`` are None where the
    model leaves them open, and so is a size in ``shape``. ``axis`` of the array that is fed counts
    samples; with None none does, and the whole array is one. ``also`` are further names of it."""

    name: str
    dtype: np.dtype[Any] | None
    shape: Shape | None
    quantization: Quantization | None
    channels_first: bool
    axis: int | None = 0
    also: Sequence[str] = ()

    def scaling(self, given: Given) -> Scaling:
        """What becomes of the numbers of a file on the way to this input."""
        if self.quantization is None or self.dtype is None or not is_integer(self.dtype):
            return given.scaling
        return replace(given.scaling, codes=self.dtype)

    def is_one(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape is exactly one sample."""
        one = self.shape is not None and len(shape) == len(self.shape)
        return one or self.axis is None or not shape

    def check_shape(self, shape: Sequence[int], path: Path | None) -> None:
        """Raise FeedError where an array of this shape is neither a sample nor several."""
        axis = (self.axis or 0) % max(1, len(shape))
        sample = shape if self.is_one(shape) else [*shape[:axis], *shape[axis + 1 :]]
        if self.shape is None or _fits(sample, self.shape):
            return
        what = "an array" if path is None else str(path)
        raise FeedError(
            f"{what} has shape {format_shape(tuple(shape))}, {self}",
            hint="an array is one sample, or has samples on axis 0 (--batch-axis says another)",
        )

    def __str__(self) -> str:
        """For messages: ``the input 'image' takes 8x8x1 int8``."""
        shape = "any shape" if self.shape is None else format_shape(self.shape)
        return f"the input {self.name!r} takes {shape}{f' {self.dtype}' if self.dtype else ''}"


def wanted_inputs(given: Given, session: Session) -> dict[str, Wanted]:
    """Every input of the model that has a name of its own. Raises FeedError for bad options."""
    named = [spec for spec in session.inputs if not spec.name.startswith("*")]
    shapes = _shapes(given.shapes, [spec.name for spec in named if spec.required])
    unknown = set(shapes) - {spec.name for spec in named}
    if unknown:
        names = ", ".join(spec.name for spec in named)
        raise FeedError(f"the model has no input {unknown.pop()!r}", hint=f"it has {names}")
    runtime = session.provenance.get("runtime")
    channels_first = given.layout == "chw" or (given.layout is None and runtime == "torch")
    batched = session.capabilities.batched
    axes = input_axes(given.batch_axis, session)
    return {
        spec.name: Wanted(
            spec.name,
            None if spec.dtype is None else numpy_dtype(spec.dtype),
            _sample_shape(spec, shapes.get(spec.name), batched, axes.get(spec.name, 0)),
            spec.quantization,
            channels_first,
            axes.get(spec.name, 0),
            spec.also,
        )
        for spec in named
    }


def input_axes(given: Mapping[str, int | None], session: Session) -> dict[str, int | None]:
    """The batch axes of those inputs that selectors match. Raises SelectionError."""
    return {
        tap.name: axis
        for selector, axis in given.items()
        for tap in filter(compile_selector(selector), session.graph.inputs)
    }


def _fits(shape: Sequence[int | None], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(
        want in (None, size) for want, size in zip(wanted, shape, strict=True)
    )


def _sample_shape(
    spec: InputSpec, given: Shape | None, batched: bool, axis: int | None
) -> Shape | None:
    if spec.shape is None:
        return given
    shape = spec.shape
    if batched and axis is not None:
        if not -len(shape) <= axis < len(shape):
            raise FeedError(
                f"the input {spec.name!r} has no axis {axis}, its shape is {format_shape(shape)}",
                hint="--batch-axis counts axes from 0",
            )
        axis %= len(shape)
        shape = (*shape[:axis], *shape[axis + 1 :])
    if given is None:
        return shape
    if not _fits(given, shape):
        raise FeedError(
            f"--shape says {format_shape(given)}, "
            f"the input {spec.name!r} takes {format_shape(shape)}",
            hint="give the shape of one sample, without the batch axis",
        )
    return given


def _shapes(texts: Sequence[str], names: Sequence[str]) -> dict[str, Shape]:
    """``NAME=8x8x1`` by name; without a name, of the only input."""
    shapes: dict[str, Shape] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        if not equals and len(names) != 1:
            raise FeedError(
                f"the model takes {len(names)} inputs: {', '.join(names)}",
                hint=f"say which: --shape NAME={text}",
            )
        if not _SHAPE.fullmatch(sizes):
            hint = "write sizes from 1 as in 8x8x1, without the batch axis"
            raise FeedError(f"{sizes!r} is not a shape", hint=hint)
        shapes[name if equals else names[0]] = tuple(map(int, sizes.lower().split("x")))
    return shapes


def element_type(name: str) -> np.dtype[Any]:
    """The dtype that --dtype names. Raises FeedError where it is none of numbers."""
    dtype = numpy_dtype(name)
    if dtype is None or not (dtype.kind in "fbc" or is_integer(dtype) or is_real(dtype)):
        raise FeedError(f"there is no dtype of numbers {name!r}", hint="for instance float32")
    return dtype


def parse_fraction(text: str | None, option: str) -> Fraction | None:
    """``1/255``, ``-128`` or ``0.5``, exactly. Raises FeedError."""
    try:
        return None if text is None else Fraction(text)
    except (ValueError, ZeroDivisionError):
        hint = f"for instance {option} 1/255"
        raise FeedError(f"{option} {text!r} is not a number", hint=hint) from None


__all__ = [
    "Given",
    "Scaling",
    "Wanted",
    "element_type",
    "input_axes",
    "parse_fraction",
    "wanted_inputs",
]
