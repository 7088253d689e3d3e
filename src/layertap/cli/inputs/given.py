"""What the command line says about inputs, and what the model wants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from layertap.core.dtypes import Array, is_real, numpy_dtype
from layertap.core.feeds import InputSpec
from layertap.core.graph import format_shape
from layertap.core.protocols import Session
from layertap.core.quantization import Quantization
from layertap.errors import FeedError

Shape = tuple[int | None, ...]

_SHAPE = re.compile(r"[1-9]\d*(?:[xX][1-9]\d*)*")
_NARROW = frozenset({"int4", "uint4", "int2", "uint2"})
"""Whole numbers that NumPy itself has no dtype for."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """``number * scale + offset`` for every number that a file holds; exact for integers."""

    scale: Fraction | None = None
    offset: Fraction | None = None

    @property
    def given(self) -> bool:
        return self.scale is not None or self.offset is not None

    def __call__(self, numbers: Array) -> Array:
        if not self.given:
            return numbers
        scale = Fraction(1) if self.scale is None else self.scale
        offset = self.offset or Fraction(0)
        if numbers.dtype.kind in "iub" and scale.denominator == offset.denominator == 1:
            exact: Array = numbers.astype(np.int64) * int(scale) + int(offset)
            return exact
        scaled: Array = numbers.astype(np.float64) * float(scale) + float(offset)
        return scaled.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Given:
    """The options of the command line that concern inputs, as texts and numbers.

    files: paths, folders, globs, ``NAME=FILE`` or one ``module:function``. random: a seed.
    samples: how many random samples. shapes: ``[NAME=]8x8x1`` of one sample, without batch.
    dtype: element type of raw and random inputs. hop: numbers between the starts of windows.
    layout: ``hwc`` or ``chw`` for images where the model's shape does not tell.
    value_range: ``LOW:HIGH`` of random numbers.
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the model takes as one sample of one input; ``dtype`` and ``shape`` are None where the
    model leaves them open, and so is a size in ``shape``."""

    name: str
    dtype: np.dtype[Any] | None
    shape: Shape | None
    quantization: Quantization | None
    channels_first: bool

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
    return {
        spec.name: Wanted(
            spec.name,
            None if spec.dtype is None else numpy_dtype(spec.dtype),
            _sample_shape(spec, shapes.get(spec.name), batched),
            spec.quantization,
            channels_first,
        )
        for spec in named
    }


def _sample_shape(spec: InputSpec, given: Shape | None, batched: bool) -> Shape | None:
    if spec.shape is None:
        return given
    shape = spec.shape[1:] if batched else spec.shape
    if given is None:
        return shape
    fits = len(given) == len(shape) and all(
        want in (None, size) for want, size in zip(shape, given, strict=True)
    )
    if not fits:
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
    if dtype is None or not (dtype.kind in "iufbc" or is_real(dtype) or name in _NARROW):
        raise FeedError(f"there is no dtype of numbers {name!r}", hint="for instance float32")
    return dtype


def parse_fraction(text: str | None, option: str) -> Fraction | None:
    """``1/255``, ``-128`` or ``0.5``, exactly. Raises FeedError."""
    try:
        return None if text is None else Fraction(text)
    except (ValueError, ZeroDivisionError):
        hint = f"for instance {option} 1/255"
        raise FeedError(f"{option} {text!r} is not a number", hint=hint) from None


__all__ = ["Given", "Scaling", "Wanted", "element_type", "parse_fraction", "wanted_inputs"]
