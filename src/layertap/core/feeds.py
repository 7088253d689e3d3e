"""From what a user passes as input to checked feeds of one batch each."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from layertap.core.dtypes import Array, is_real, numpy_dtype
from layertap.core.graph import format_shape
from layertap.core.quantization import Quantization
from layertap.errors import FeedError

Feed = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a model: what a feed must hold under ``name``.

    ``dtype`` is None and ``shape`` is None where the model does not fix them: then the value is
    passed on as it is. ``shape`` includes the batch axis of a batched model; None in it means any
    size. A name that starts with ``**`` stands for any further names, one that starts with ``*``
    for any further positional inputs. ``nested``: the value may also be a tuple or a mapping of
    arrays with the samples on axis 0, or where it is ``"list"`` a list of them.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    quantization: Quantization | None = None
    required: bool = True
    nested: Literal["tuple", "list"] | None = None


@dataclass(frozen=True)
class Feeds:
    """Feeds of one batch each. ``samples`` and ``batches`` are None where nobody knows yet."""

    each: Iterable[tuple[Feed, int]]
    samples: int | None
    batches: int | None

    def __iter__(self) -> Iterator[tuple[Feed, int]]:
        """Pairs of a feed and its number of samples."""
        return iter(self.each)

    def peek(self) -> tuple[tuple[Feed, int] | None, Feeds]:
        """The first pair, or None without any, and feeds that still start with it."""
        rest = iter(self.each)
        first = next(rest, None)
        each = rest if first is None else itertools.chain([first], rest)
        return first, Feeds(each, self.samples, self.batches)


def is_array(value: object) -> bool:
    """Whether ``value`` is an array or tensor of any framework."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__")


def make_feeds(
    x: Any, inputs: Sequence[InputSpec], *, batched: bool = True, batch_size: int | None = None
) -> Feeds:
    """Feeds from ``x``: one batch, or an iterable of batches.

    An array, a mapping of names to arrays, a tuple of arrays (one per input), a list of them for a
    model that takes several, or nested lists of numbers is one set of samples, cut into batches of
    ``batch_size`` when that is given. Anything else that iterates (list, generator, DataLoader,
    ``tf.data.Dataset``) yields batches; what a batch holds beyond the required inputs, such as
    labels, is left out (a batch that is a mapping names all of its inputs). An iterable that knows
    its number of samples may say so as an attribute ``samples`` (int).

    ``batched=False``: the model's inputs have no batch axis; a sample is then an exact input, and
    an additional leading axis enumerates samples.

    Raises FeedError with the expected and the given shape and dtype.
    """
    x = _untabled(x)
    if _is_one_set(x, inputs):
        return _cut(_named(x, inputs, exact=True), inputs, batched, batch_size)
    if isinstance(x, str | bytes) or not isinstance(x, Iterable):
        raise FeedError(
            f"the input is {_a(x)}, not an array, a mapping, a tuple or an iterable of batches",
            hint=_expected(inputs),
        )
    samples = getattr(x, "samples", None)
    known = samples if isinstance(samples, int) else None
    return Feeds(_each(x, inputs, batched, batch_size), known, _length(x))


def _each(
    batches: Iterable[Any], inputs: Sequence[InputSpec], batched: bool, batch_size: int | None
) -> Iterator[tuple[Feed, int]]:
    for batch in map(_untabled, batches):
        yield from _cut(_named(batch, inputs, exact=False), inputs, batched, batch_size)


def _untabled(x: Any) -> Any:
    """A data frame as an array of its rows: as an iterable it gives the names of its columns."""
    return x.to_numpy() if hasattr(x, "to_numpy") and hasattr(x, "columns") else x


def _length(x: Any) -> int | None:
    try:
        return len(x)
    except TypeError:
        return None


def _is_one_set(x: Any, inputs: Sequence[InputSpec]) -> bool:
    if is_array(x) or isinstance(x, Mapping | tuple | int | float):
        return True
    return isinstance(x, list) and bool(x) and (_is_numbers(x) or _is_one_each(x, inputs))


def _is_one_each(values: Any, inputs: Sequence[InputSpec]) -> bool:
    """Whether these are arrays for several inputs that the model requires, one for each."""
    return len(values) == len(_required(inputs)) > 1 and all(map(is_array, values))


def _required(inputs: Sequence[InputSpec]) -> list[str]:
    return [spec.name for spec in inputs if spec.required and not spec.name.startswith("*")]


def _is_numbers(x: Any) -> bool:
    """Whether ``x`` is a number or nested lists of numbers (judged by the first)."""
    while isinstance(x, list | tuple) and x:
        x = x[0]
    return isinstance(x, int | float | bool)


def _named(x: Any, inputs: Sequence[InputSpec], *, exact: bool) -> dict[str, Any]:
    """``x`` with input names. With ``exact`` a surplus of positional values is an error."""
    if isinstance(x, Mapping):
        return _check_names(dict(x), inputs)
    values = list(x) if isinstance(x, tuple | list) and not _is_numbers(x) else [x]
    if not exact and values and _holds_all(values[0], inputs):
        return _named(values[0], inputs, exact=True)
    names = [spec.name for spec in inputs if not spec.name.startswith("*")]
    if exact or not names:
        names += [f"{_further(inputs)}.{i}" for i in range(len(values)) if _further(inputs)]
    else:
        # (x, labels) is what data loaders yield: labels are no value for an optional input.
        names = _required(inputs) or names[:1]
    if len(values) > len(names) and exact:
        if len(names) == 1 and inputs[0].nested:
            return {names[0]: x}
        raise FeedError(
            f"the input has {len(values)} arrays, the model takes {len(names)}",
            hint=_expected(inputs),
        )
    return _check_names(dict(zip(names, values, strict=False)), inputs)


def _holds_all(first: Any, inputs: Sequence[InputSpec]) -> bool:
    """Whether the first part of a batch holds all inputs, so that the others are labels."""
    if isinstance(first, Mapping):
        known = {spec.name for spec in inputs}
        return bool(first) and set(_required(inputs)) <= first.keys() <= known
    if not isinstance(first, tuple | list) or any(spec.nested for spec in inputs):
        return False
    return _is_one_each(first, inputs)


def _further(inputs: Sequence[InputSpec]) -> str:
    """The name under which further positional inputs go, or an empty text."""
    names = (s.name for s in inputs)
    return next((n[1:] for n in names if n.startswith("*") and not n.startswith("**")), "")


def _check_names(feed: dict[str, Any], inputs: Sequence[InputSpec]) -> dict[str, Any]:
    known = {spec.name for spec in inputs}
    open_ended = any(name.startswith("*") for name in known)
    for name in feed:
        if name not in known and not open_ended:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
            raise FeedError(
                f"the model has no input {name!r}",
                hint=f"did you mean {near[0]!r}?" if near else _expected(inputs),
            )
    missing = [name for name in _required(inputs) if name not in feed]
    if missing:
        raise FeedError(f"the input {missing[0]!r} is missing", hint=_expected(inputs))
    return feed


def _cut(
    feed: dict[str, Any], inputs: Sequence[InputSpec], batched: bool, batch_size: int | None
) -> Feeds:
    by_name = {spec.name: spec for spec in inputs}
    checked = {
        name: _conform(value, by_name[name], batched) if name in by_name else value
        for name, value in feed.items()
    }
    _check_lengths(checked, inputs)
    samples = count_samples(checked)
    size = batch_size or samples or 1
    if size < 1:
        raise FeedError(f"a batch size of {size} is not possible", hint="give 1 or more")
    starts = range(0, samples, size)
    cut = ((slice_feed(checked, i, i + size, samples), min(size, samples - i)) for i in starts)
    return Feeds(cut, samples, len(starts))


def slice_feed(feed: Feed, start: int, stop: int, samples: int) -> dict[str, Any]:
    """Samples ``start`` to ``stop`` of a feed of ``samples`` samples; what has no batch axis of
    that length is passed on unchanged."""
    if start == 0 and stop >= samples:
        return dict(feed)
    return {name: _sliced(value, start, stop, samples) for name, value in feed.items()}


def _sliced(value: Any, start: int, stop: int, samples: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _sliced(inner, start, stop, samples) for key, inner in value.items()}
    if type(value) is tuple:
        return tuple(_sliced(inner, start, stop, samples) for inner in value)
    return value[start:stop] if _rows(value) == samples else value


def fed(feed: Feed, spec: InputSpec) -> Array:
    """What ``feed`` holds for an input whose dtype and shape the model fixes: an array of just
    these, C-contiguous. Raises FeedError."""
    described = f"{format_shape(spec.shape)} {spec.dtype}"
    if spec.name not in feed:
        raise FeedError(f"the input {spec.name!r} is missing", hint=f"it is {described}")
    value = np.asarray(feed[spec.name])
    fits = value.dtype == numpy_dtype(spec.dtype or "") and spec.shape is not None
    fits = fits and value.ndim == len(spec.shape or ())
    fits = fits and all(
        want in (None, size) for want, size in zip(spec.shape or (), value.shape, strict=True)
    )
    if not fits:
        raise FeedError(
            f"the input {spec.name!r} is {format_shape(value.shape)} {value.dtype}",
            hint=f"the model takes {described}",
        )
    return np.ascontiguousarray(value).reshape(value.shape)


def _rows(value: Any) -> int | None:
    return int(value.shape[0]) if is_array(value) and len(value.shape) else None


def count_samples(feed: Feed) -> int:
    """Samples in the feed: the length of the first array's batch axis; 1 without an array."""
    rows = map(_rows, _arrays(feed))
    return next((count for count in rows if count is not None), 1)


def _arrays(value: Any) -> Iterator[Any]:
    """The arrays in a value: in tuples and mappings, too, but not in a list, which may hold
    samples, nor in a class of its own."""
    if is_array(value):
        yield value
    elif isinstance(value, Mapping) or type(value) is tuple:
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _arrays(inner)


def _check_lengths(feed: Feed, inputs: Sequence[InputSpec]) -> None:
    """All inputs whose shape the model fixes must hold the same number of samples."""
    fixed = (spec.name for spec in inputs if spec.shape is not None and spec.name in feed)
    rows = [(name, _rows(feed[name])) for name in fixed]
    for name, count in rows[1:]:
        if count != rows[0][1]:
            raise FeedError(
                f"the input {rows[0][0]!r} holds {rows[0][1]} samples, {name!r} holds {count}",
                hint="axis 0 counts samples and is the same for all inputs",
            )


def _conform(value: Any, spec: InputSpec, batched: bool) -> Any:
    """``value`` as an array of the input's dtype and shape, or FeedError."""
    dtype = None if spec.dtype is None else numpy_dtype(spec.dtype)
    if dtype is None:
        if isinstance(value, list) and _is_numbers(value):
            return as_array(spec.name, value)
        return tuple(value) if isinstance(value, list) and spec.nested == "list" else value
    array = _cast(as_array(spec.name, value), spec, dtype)
    expected = spec.shape
    if expected is None:
        return array
    if not batched:
        if array.ndim == len(expected):
            array = array[None]
        expected = (None, *expected)
    else:
        expected = (None, *expected[1:])
    fits = array.ndim == len(expected) and all(
        want in (None, size) for want, size in zip(expected, array.shape, strict=True)
    )
    if not fits:
        raise _misshapen(array, spec, expected)
    return array


def as_array(name: str, value: Any) -> Array:
    """What is fed for the input ``name`` as a NumPy array. Raises FeedError."""
    try:
        array = np.asarray(value)
        if array.dtype.hasobject and not is_array(value):
            raise TypeError("it would be an array of Python objects")
        return array
    except (TypeError, ValueError, RuntimeError) as error:
        raise FeedError(
            f"the input {name!r} is {_a(value)} that NumPy cannot read: {error}",
            hint="pass a NumPy array",
        ) from error


def _cast(array: Array, spec: InputSpec, dtype: np.dtype[Any]) -> Array:
    if array.dtype == dtype:
        return array
    if is_real(array.dtype) and spec.quantization is not None:
        if np.isnan(array).any():
            raise FeedError(
                f"the input {spec.name!r} holds NaN, which no {spec.dtype} stands for",
                hint="replace what is missing by a number",
            )
        return spec.quantization.quantize(array, dtype)
    if is_real(array.dtype) and is_real(dtype):
        return array.astype(dtype)
    if array.dtype.kind in "iub" and (is_real(dtype) or _fits(array, dtype)):
        return array.astype(dtype)
    raise FeedError(
        f"the input {spec.name!r} is {array.dtype}, the model takes {spec.dtype}",
        hint="floats are quantized for inputs with a scale; integers must fit the input's dtype",
    )


def _fits(array: Array, dtype: np.dtype[Any]) -> bool:
    if dtype.kind not in "iu" or array.size == 0:
        return dtype.kind in "iu"
    limits = np.iinfo(dtype)
    return bool(array.min() >= limits.min and array.max() <= limits.max)


def _misshapen(array: Array, spec: InputSpec, expected: tuple[int | None, ...]) -> FeedError:
    one = array.ndim == len(expected) - 1 and all(
        want in (None, size) for want, size in zip(expected[1:], array.shape, strict=True)
    )
    return FeedError(
        f"the input {spec.name!r} has shape {format_shape(array.shape)}, "
        f"expected {format_shape(expected)}",
        hint="add the batch axis: x[None]" if one else f"axis 0 counts samples; dtype {spec.dtype}",
    )


def _expected(inputs: Sequence[InputSpec]) -> str:
    described = [
        spec.name if spec.shape is None else f"{spec.name} {format_shape(spec.shape)} {spec.dtype}"
        for spec in inputs
        if spec.name != "**"
    ]
    if len(described) < len(inputs):
        described.append("others by name")
    return f"the model takes {', '.join(described) or 'no inputs'}"


def _a(value: object) -> str:
    return f"a {type(value).__name__}"
