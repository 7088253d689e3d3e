"""Samples of one input, read when they are needed."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from layertap.cli.inputs.given import Given, Scaling, Wanted, element_type
from layertap.core.dtypes import Array, integer_limits, is_integer, is_real
from layertap.core.graph import format_shape
from layertap.core.messages import abridged
from layertap.errors import FeedError

_LARGEST = (1 << 63) - 1
"""The largest number that is drawn."""


class Stack(Protocol):
    """Samples on axis 0, read slice by slice, so that memory does not grow with their number."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int, /) -> Array: ...


class ArrayStack:
    """An array (mapped from a file, as a rule) with samples on axis 0."""

    def __init__(self, array: Array, scaling: Scaling) -> None:
        self._array, self._scaling = array, scaling

    def __len__(self) -> int:
        return len(self._array)

    def read(self, start: int, stop: int) -> Array:
        return self._scaling(self._array[start:stop])


class Joined:
    """The samples of several stacks, one after the other."""

    def __init__(self, parts: Sequence[Stack]) -> None:
        self._parts = parts
        self._ends = list(itertools.accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, start: int, stop: int) -> Array:
        pieces = []
        while start < stop:
            part = bisect.bisect_right(self._ends, start)
            first = self._ends[part] - len(self._parts[part])
            end = min(stop, self._ends[part])
            pieces.append(self._parts[part].read(start - first, end - first))
            start = end
        if len({piece.shape[1:] for piece in pieces}) > 1:
            shapes = ", ".join(sorted({format_shape(piece.shape[1:]) for piece in pieces}))
            raise FeedError(
                f"the samples have different shapes: {abridged(shapes)}",
                hint="--batch-size 1 feeds them one by one; --resize makes images alike",
            )
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


class RandomStack:
    """Uniform random samples. Sample ``i`` depends on the seed, the input's position and ``i``
    alone, so that it is the same whatever the batch size and the number of samples."""

    def __init__(self, given: Given, wanted: Wanted, position: int) -> None:
        if wanted.shape is None:
            raise FeedError(
                f"the model does not say what {wanted.name!r} looks like",
                hint=f"--shape {wanted.name}=3x224x224 gives one sample's shape without batch",
            )
        dtype = element_type(given.dtype) if given.dtype else wanted.dtype
        self._dtype = np.dtype(np.float32) if dtype is None else dtype
        self._shape = tuple(1 if size is None else size for size in wanted.shape)
        self._samples = 1 if given.samples is None else given.samples
        self._key = (given.random or 0, position)
        self._low, self._high = _range(given.value_range, self._dtype)

    def __len__(self) -> int:
        return self._samples

    def read(self, start: int, stop: int) -> Array:
        return np.stack([self._sample(i) for i in range(start, min(stop, self._samples))])

    def _sample(self, i: int) -> Array:
        random = np.random.default_rng([*self._key, i])
        if is_real(self._dtype) or self._dtype.kind == "c":
            real = random.uniform(self._low, self._high, self._shape)
            return np.asarray(real).astype(self._dtype)
        low, high = int(self._low), int(self._high)
        drawn = random.integers(low, high, self._shape, np.int64, endpoint=True)
        return np.asarray(drawn).astype(self._dtype)


def _range(text: str | None, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Smallest and largest number: of the dtype for integers of up to 16 bits, 0 and 1 for truth
    values, wider integers (indices, as a rule) and real numbers."""
    if text is not None:
        low, colon, high = text.partition(":")
        try:
            bounds = float(low), float(high)
        except ValueError:
            bounds = (1.0, 0.0)
        if not colon or not all(map(math.isfinite, bounds)) or bounds[0] > bounds[1]:
            raise FeedError(f"{text!r} is not a range", hint="write LOW:HIGH, as in --range -1:1")
        limits = _limits(dtype)
        if limits and not limits[0] <= int(bounds[0]) <= int(bounds[1]) <= limits[1]:
            raise FeedError(
                f"the range {text} goes beyond {dtype}", hint=f"it has {limits[0]} to {limits[1]}"
            )
        return bounds
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        return _limits(dtype) or (0, 1)
    return 0, 1


def _limits(dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """Smallest and largest of whole numbers that can be drawn, None for other numbers."""
    if not is_integer(dtype):
        return None
    lowest, highest = integer_limits(dtype)
    return lowest, min(highest, _LARGEST)


__all__ = ["ArrayStack", "Joined", "RandomStack", "Stack"]
