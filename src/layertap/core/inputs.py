"""What a model takes under one name, and how a value becomes that: shape, dtype, codes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from layertap.core.dtypes import Array, integer_limits, is_integer, is_real, numpy_dtype
from layertap.core.graph import format_shape
from layertap.core.quantization import Quantization
from layertap.errors import FeedError

NEGLIGIBLE = 0.01
"""The share of clipped values from which on a warning tells of them."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a model: what a feed must hold under ``name``.

    ``dtype`` is None and ``shape`` is None where the model does not fix them: then the value is
    passed on as it is. ``shape`` includes the batch axis of a batched model; None in it means any
    size. A name that starts with ``**`` stands for any further names, one that starts with ``*``
    for any further positional inputs. ``nested``: the value may also be a tuple or a mapping of
    arrays with the samples on axis 0, or where it is ``"list"`` a list of them. ``also`` are
    further names under which it may be fed.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    quantization: Quantization | None = None
    required: bool = True
    nested: Literal["tuple", "list"] | None = None
    also: tuple[str, ...] = ()


@dataclass(slots=True)
class Clipping:
    """How many of the values for a quantized input were beyond what its integers stand for, of how
    many so far."""

    clipped: int = 0
    total: int = 0
    told: bool = False

    def add(self, clipped: int, total: int, spec: InputSpec) -> None:
        """Count; log a warning once the share is not negligible."""
        self.clipped += clipped
        self.total += total
        if self.told or self.clipped <= NEGLIGIBLE * self.total:
            return
        self.told = True
        _log.warning(
            "the input %r: %.1f %% of the first %s values are beyond what its %s stands for%s and "
            "are clipped; scale them as for the training of the model",
            *(spec.name, 100 * self.clipped / self.total, f"{self.total:,}", spec.dtype),
            _span(spec),
        )


def _span(spec: InputSpec) -> str:
    """The real numbers that the smallest and the largest code stand for, in brackets."""
    dtype = numpy_dtype(spec.dtype or "")
    if dtype is None or spec.quantization is None or spec.quantization.per_channel:
        return ""
    lowest, highest = spec.quantization.dequantize(np.array(integer_limits(dtype)))
    return f" ({lowest:.4g} to {highest:.4g})"


def is_array(value: object) -> bool:
    """Whether ``value`` is an array or tensor of any framework."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__")


def arrays_in(value: Any) -> Iterator[Any]:
    """The arrays in a value: in tuples and mappings, too, but not in a list, which may hold
    samples, nor in a class of its own."""
    if is_array(value):
        yield value
    elif isinstance(value, Mapping) or type(value) is tuple:
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from arrays_in(inner)


def is_numbers(x: Any) -> bool:
    """Whether ``x`` is a number or nested lists of numbers (judged by the first)."""
    for _ in range(64):  # the most axes that NumPy has, so that a list that holds itself ends
        if not (isinstance(x, list | tuple) and x):
            break
        x = x[0]
    return isinstance(x, int | float | bool)


def as_array(name: str, value: Any) -> Array:
    """What is fed for the input ``name`` as a NumPy array. Raises FeedError."""
    try:
        array = np.asarray(value)
        if array.dtype.hasobject and not is_array(value):
            raise TypeError("it would be an array of Python objects")
        return array
    except (TypeError, ValueError, RuntimeError) as error:
        raise FeedError(
            f"the input {name!r} is a {type(value).__name__} that NumPy cannot read: {error}",
            hint="pass a NumPy array",
        ) from error


def check_unmasked(name: str, value: Any) -> None:
    """Raise FeedError where ``value`` masks anything: no model knows of masks."""
    if "numpy.ma" not in sys.modules:
        return
    for part in value if isinstance(value, list) else arrays_in(value):
        if isinstance(part, np.ma.MaskedArray) and np.any(part.mask):
            raise FeedError(
                f"the input {name!r} masks {np.count_nonzero(part.mask):,} of its values",
                hint="give them values: x.filled(0), or what the model takes for missing ones",
            )


def fitted(value: Any, spec: InputSpec, *, batched: bool, axis: int | None) -> Any:
    """``value`` as an array of the input's shape, its dtype as it is; ``axis`` counts samples, or
    with None no axis does. Without a batch axis (``batched``) axis 0 is an additional one.

    What the model does not fix is passed on. Raises FeedError.
    """
    if spec.dtype is None or numpy_dtype(spec.dtype) is None:
        if isinstance(value, list) and is_numbers(value):
            return as_array(spec.name, value)
        return tuple(value) if isinstance(value, list) and spec.nested == "list" else value
    array = as_array(spec.name, value)
    if spec.shape is None:
        return array
    if not batched:
        return _enumerated(array, spec, axis)
    expected = list(spec.shape) or [None]
    if axis is not None and -len(expected) <= axis < len(expected):
        expected[axis] = None
    _check_shape(array, spec, expected, axis)
    return array


def _enumerated(array: Array, spec: InputSpec, axis: int | None) -> Array:
    """``array`` with an axis 0 that enumerates samples, of length 1 where it is one."""
    expected = list(spec.shape or ())
    if axis is None or array.ndim == len(expected):
        _check_shape(array, spec, expected, None)
        return array[None]
    if -array.ndim <= axis < array.ndim:
        array = np.moveaxis(array, axis, 0)
    _check_shape(array, spec, [None, *expected], 0)
    return array


def _check_shape(
    array: Array, spec: InputSpec, expected: Iterable[int | None], axis: int | None
) -> None:
    expected = tuple(expected)
    if _matches(array.shape, expected):
        return
    one = axis == 0 and _matches(array.shape, expected[1:])
    counts = "no axis" if axis is None else f"axis {axis}"
    raise FeedError(
        f"the input {spec.name!r} has shape {format_shape(array.shape)}, "
        f"expected {format_shape(expected)}",
        hint="add the batch axis: x[None]"
        if one
        else f"{counts} counts samples; dtype {spec.dtype}",
    )


def _matches(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        want in (None, size) for want, size in zip(expected, shape, strict=True)
    )


def cast(value: Any, spec: InputSpec, clipping: Clipping) -> Any:
    """``value``, an array of the input's shape, in the input's dtype. Real numbers are quantized
    for an input that is, and what that clips is counted in ``clipping``. Raises FeedError."""
    dtype = None if spec.dtype is None else numpy_dtype(spec.dtype)
    if dtype is None or value.dtype == dtype:
        return value
    array: Array = value
    if spec.quantization is not None and is_integer(dtype) and array.dtype.kind != "c":
        return _codes(array, spec, dtype, clipping)
    real = is_real(array.dtype) and is_real(dtype)
    if real or (array.dtype.kind in "iub" and (is_real(dtype) or _fits(array, dtype))):
        return array.astype(dtype)
    raise FeedError(
        f"the input {spec.name!r} is {array.dtype}, the model takes {spec.dtype}",
        hint="floats are quantized for inputs with a scale; integers must fit the input's dtype",
    )


def _codes(array: Array, spec: InputSpec, dtype: np.dtype[Any], clipping: Clipping) -> Array:
    assert spec.quantization is not None
    if not is_real(array.dtype):
        raise _ambiguous(array, spec, dtype)
    if np.isnan(array).any():
        raise FeedError(
            f"the input {spec.name!r} holds NaN, which no {spec.dtype} stands for",
            hint="replace what is missing by a number",
        )
    codes, clipped = spec.quantization.saturate(array, dtype)
    clipping.add(clipped, array.size, spec)
    return codes


def _ambiguous(array: Array, spec: InputSpec, dtype: np.dtype[Any]) -> FeedError:
    """The error for integers that may be codes or real numbers: only who has them knows."""
    lowest, highest = integer_limits(dtype)
    codes = f"codes of {spec.dtype}, which are {lowest} to {highest}"
    if _fits(array, dtype):
        codes = f"codes: np.asarray(x, {spec.dtype!r})"
    return FeedError(
        f"the input {spec.name!r} is {array.dtype}: are these codes of {spec.dtype}, or real "
        "numbers to be quantized?",
        hint=f"real numbers: np.asarray(x, 'float32'); {codes}",
    )


def _fits(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether ``array`` holds integers that are all integers of ``dtype``."""
    if not is_integer(dtype) or array.dtype.kind not in "iub":
        return False
    lowest, highest = integer_limits(dtype)
    return bool(array.size == 0 or (array.min() >= lowest and array.max() <= highest))


def fed(feed: Mapping[str, Any], spec: InputSpec) -> Array:
    """What ``feed`` holds for an input whose dtype and shape the model fixes: an array of just
    these, C-contiguous. Raises FeedError."""
    described = f"{format_shape(spec.shape)} {spec.dtype}"
    if spec.name not in feed:
        raise FeedError(f"the input {spec.name!r} is missing", hint=f"it is {described}")
    value = np.asarray(feed[spec.name])
    fits = value.dtype == numpy_dtype(spec.dtype or "") and spec.shape is not None
    if not fits or not _matches(value.shape, spec.shape or ()):
        raise FeedError(
            f"the input {spec.name!r} is {format_shape(value.shape)} {value.dtype}",
            hint=f"the model takes {described}",
        )
    return np.ascontiguousarray(value).reshape(value.shape)


__all__ = [
    "Clipping",
    "InputSpec",
    "arrays_in",
    "as_array",
    "cast",
    "check_unmasked",
    "fed",
    "fitted",
    "is_array",
    "is_numbers",
]
