"""From what a user passes as input to checked feeds of one batch each."""

from __future__ import annotations

import difflib
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layertap.core.graph import format_shape
from layertap.core.inputs import (
    Clipping,
    InputSpec,
    arrays_in,
    as_array,
    cast,
    check_unmasked,
    fed,
    fitted,
    is_array,
    is_numbers,
)
from layertap.errors import FeedError

Feed = Mapping[str, Any]
Axes = Mapping[str, int | None]
"""Which axis of an input counts samples, by its name; None where the input has none of them and is
passed whole with each batch."""


class Batch(dict[str, Any]):
    """A feed that knows the batch ``axes`` of its inputs where they are others than axis 0."""

    def __init__(self, values: Feed, axes: Axes | None = None) -> None:
        super().__init__(values)
        self.axes: Axes = {} if axes is None else axes


@dataclass(frozen=True)
class Feeds:
    """Feeds of one batch each. ``samples`` and ``batches`` are None where nobody knows yet.
    ``clipping`` counts, by input, as the feeds are taken."""

    each: Iterable[tuple[Feed, int]]
    samples: int | None
    batches: int | None
    clipping: Mapping[str, Clipping] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[Feed, int]]:
        """Pairs of a feed and its number of samples."""
        return iter(self.each)

    def peek(self) -> tuple[tuple[Feed, int] | None, Feeds]:
        """The first pair, or None without any, and feeds that still start with it."""
        rest = iter(self.each)
        first = next(rest, None)
        each = rest if first is None else itertools.chain([first], rest)
        return first, Feeds(each, self.samples, self.batches, self.clipping)

    @property
    def clipped(self) -> dict[str, dict[str, int]]:
        """For the run's provenance: of each input some values of which were clipped on the way to
        its integers, how many (``clipped``) of how many (``total``) that were taken so far."""
        return {
            name: {"clipped": count.clipped, "total": count.total}
            for name, count in self.clipping.items()
            if count.clipped
        }


def make_feeds(
    x: Any,
    inputs: Sequence[InputSpec],
    *,
    batched: bool = True,
    batch_size: int | None = None,
    batch_axis: Axes | None = None,
) -> Feeds:
    """Feeds from ``x``: one batch, or an iterable of batches.

    An array, a mapping of names to arrays, a tuple of arrays (one per input), a list of them for a
    model that takes several, or nested lists of numbers is one set of samples, cut into batches of
    ``batch_size`` when that is given. Anything else that iterates (list, generator, DataLoader,
    ``tf.data.Dataset``) yields batches; what a batch holds beyond the required inputs, such as
    labels, is left out (a batch that is a mapping names all of its inputs). An iterable that knows
    its number of samples may say so as an attribute ``samples`` (int).

    ``batched=False``: the model's inputs have no batch axis; a sample is then an exact input, and
    an additional leading axis enumerates samples. ``batch_axis`` says by name for which inputs
    another axis than axis 0 counts samples, or with None that none does.

    Raises FeedError with the expected and the given shape and dtype.
    """
    x = _untabled(x)
    cutter = _Cutter(inputs, batched, checked_batch_size(batch_size), batch_axis or {})
    if _is_one_set(x, inputs):
        return cutter.cut(_named(x, inputs, exact=True))
    if isinstance(x, str | bytes) or not isinstance(x, Iterable):
        raise FeedError(
            f"the input is a {type(x).__name__}, "
            "not an array, a mapping, a tuple or an iterable of batches",
            hint=_expected(inputs),
        )
    samples = getattr(x, "samples", None)
    known = samples if isinstance(samples, int) else None
    named = (_named(_untabled(batch), inputs, exact=False) for batch in x)
    each = itertools.chain.from_iterable(map(cutter.cut, named))
    return Feeds(each, known, _length(x), cutter.clipping)


def checked_batch_size(size: Any) -> int | None:
    """``size`` if it is a whole number from 1, or None. Raises FeedError."""
    try:
        number = None if size is None else operator.index(size)
    except TypeError:
        number = 0
    if number is not None and number < 1:
        raise FeedError(
            f"a batch size of {size!r} is not possible", hint="give a whole number from 1"
        )
    return number


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
    return isinstance(x, list) and bool(x) and (is_numbers(x) or _is_one_each(x, inputs))


def _is_one_each(values: Any, inputs: Sequence[InputSpec]) -> bool:
    """Whether these are arrays for several inputs that the model requires, one for each."""
    return len(values) == len(_required(inputs)) > 1 and all(map(is_array, values))


def _required(inputs: Sequence[InputSpec]) -> list[str]:
    return [spec.name for spec in inputs if spec.required and not spec.name.startswith("*")]


def _named(x: Any, inputs: Sequence[InputSpec], *, exact: bool) -> dict[str, Any]:
    """``x`` with input names. With ``exact`` a surplus of positional values is an error."""
    if isinstance(x, Mapping):
        return _check_names(_own_names(x, inputs), inputs)
    values = list(x) if isinstance(x, tuple | list) and not is_numbers(x) else [x]
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
        return bool(first) and set(_required(inputs)) <= _own_names(first, inputs).keys() <= known
    if not isinstance(first, tuple | list) or any(spec.nested for spec in inputs):
        return False
    return _is_one_each(first, inputs)


def _further(inputs: Sequence[InputSpec]) -> str:
    """The name under which further positional inputs go, or an empty text."""
    names = (s.name for s in inputs)
    return next((n[1:] for n in names if n.startswith("*") and not n.startswith("**")), "")


def _own_names(feed: Mapping[str, Any], inputs: Sequence[InputSpec]) -> dict[str, Any]:
    """``feed`` with further names of inputs replaced by their own. Raises FeedError where it has
    both."""
    own = {name: spec.name for spec in inputs for name in spec.also} | {
        spec.name: spec.name for spec in inputs
    }
    named = {own.get(name, name): value for name, value in feed.items()}
    if len(named) < len(feed):
        twice = next(own[name] for name in feed if own.get(name, name) != name)
        raise FeedError(
            f"the input {twice!r} is given twice, under different names", hint="give it once"
        )
    return named


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


class _Cutter:
    """Cuts named values into feeds of one batch each. Only what a batch holds is converted to the
    model's dtypes, when its turn comes."""

    def __init__(
        self, inputs: Sequence[InputSpec], batched: bool, batch_size: int | None, axes: Axes
    ) -> None:
        self.specs = {spec.name: spec for spec in inputs}
        self.batched, self.batch_size = batched, batch_size
        self.given = axes
        # Without a batch axis of its own, what is fed gets one in front.
        self.axes = axes if batched else {n: None for n, axis in axes.items() if axis is None}
        self.clipping = {spec.name: Clipping() for spec in inputs if spec.quantization is not None}

    def cut(self, named: Mapping[str, Any]) -> Feeds:
        fits = Batch({name: self._fitted(name, value) for name, value in named.items()}, self.axes)
        self._check_lengths(fits)
        samples = count_samples(fits)
        if not self.batched:
            fits = self._repeated(fits, samples)
        size = self.batch_size or samples or 1
        starts = range(0, samples, size)
        cut = (
            (self._cast(slice_feed(fits, i, i + size, samples)), min(size, samples - i))
            for i in starts
        )
        return Feeds(cut, samples, len(starts), self.clipping)

    def _fitted(self, name: str, value: Any) -> Any:
        check_unmasked(name, value)
        axis = self.given.get(name, 0)
        if name in self.specs:
            value = fitted(value, self.specs[name], batched=self.batched, axis=axis)
        for array in arrays_in(value) if axis else ():
            rank = len(array.shape)
            if axis is not None and not -rank <= axis < rank:
                raise FeedError(
                    f"the input {name!r} has no axis {axis}, its shape is "
                    f"{format_shape(tuple(array.shape))}",
                    hint="axes are counted from 0; None stands for no batch axis",
                )
        return value

    def _check_lengths(self, fits: Feed) -> None:
        """All inputs whose shape the model fixes must hold the same number of samples."""
        counts = {
            name: count_samples(Batch({name: value}, self.axes))
            for name, value in fits.items()
            if name in self.specs
            and self.specs[name].shape is not None
            and self.axes.get(name, 0) is not None
        }
        first = next(iter(counts), "")
        for name, count in counts.items():
            if count != counts[first]:
                raise FeedError(
                    f"the input {first!r} holds {counts[first]} samples, {name!r} holds {count}",
                    hint="axis 0 counts samples, or what batch_axis says, and is as long in all",
                )

    def _repeated(self, fits: Batch, samples: int) -> Batch:
        """What is passed whole, once for each sample; nothing is copied."""
        whole = {
            name: np.broadcast_to(fits[name], (samples, *fits[name].shape[1:]))
            for name in self.axes.keys() & fits.keys() & self.specs.keys()
        }
        return Batch(fits | whole)

    def _cast(self, feed: dict[str, Any]) -> Feed:
        for name, value in feed.items():
            if name in self.specs:
                clipping = self.clipping.get(name) or Clipping()
                feed[name] = cast(value, self.specs[name], clipping)
        return feed


def slice_feed(feed: Feed, start: int, stop: int, samples: int) -> dict[str, Any]:
    """Samples ``start`` to ``stop`` of a feed of ``samples`` samples; what has no batch axis of
    that length is passed on unchanged."""
    axes = _axes(feed)
    if start == 0 and stop >= samples:
        return Batch(feed, axes)
    cut = {
        name: _sliced(value, slice(start, stop), samples, axes.get(name, 0))
        for name, value in feed.items()
    }
    return Batch(cut, axes)


def _axes(feed: Feed) -> Axes:
    return feed.axes if isinstance(feed, Batch) else {}


def _sliced(value: Any, span: slice, samples: int, axis: int | None) -> Any:
    if isinstance(value, Mapping):
        return {key: _sliced(inner, span, samples, axis) for key, inner in value.items()}
    if type(value) is tuple:
        return tuple(_sliced(inner, span, samples, axis) for inner in value)
    if axis is None or _length_of(value, axis) != samples:
        return value
    return value[(*[slice(None)] * (axis % len(value.shape)), span)] if axis else value[span]


def _length_of(value: Any, axis: int) -> int | None:
    """How many samples an array holds, None for what is none or has no such axis."""
    rank = len(value.shape) if is_array(value) else 0
    return int(value.shape[axis]) if -rank <= axis < rank else None


def count_samples(feed: Feed) -> int:
    """Samples in the feed: the length of the first array's batch axis; 1 without an array."""
    axes = _axes(feed)
    for name, value in feed.items():
        axis = axes.get(name, 0)
        if axis is None:
            continue
        counts = (_length_of(array, axis) for array in arrays_in(value))
        count = next((count for count in counts if count is not None), None)
        if count is not None:
            return count
    return 1


def _expected(inputs: Sequence[InputSpec]) -> str:
    described = [
        spec.name if spec.shape is None else f"{spec.name} {format_shape(spec.shape)} {spec.dtype}"
        for spec in inputs
        if spec.name != "**"
    ]
    if len(described) < len(inputs):
        described.append("others by name")
    return f"the model takes {', '.join(described) or 'no inputs'}"


__all__ = [
    "Axes",
    "Batch",
    "Feed",
    "Feeds",
    "InputSpec",
    "as_array",
    "checked_batch_size",
    "count_samples",
    "fed",
    "is_array",
    "make_feeds",
    "slice_feed",
]
