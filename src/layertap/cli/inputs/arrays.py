"""``.npy`` and raw binary files, mapped rather than loaded. Files are data: pickles are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipInfo

import numpy as np

from layertap.cli.inputs.archive import MemberStack, member, read_header, unreadable
from layertap.cli.inputs.given import Given, Wanted, element_type
from layertap.cli.inputs.stacks import ArrayStack, Stack
from layertap.core.dtypes import Array
from layertap.errors import FeedError


def read_npy(path: Path, given: Given, wanted: Wanted) -> Stack:
    """The array of a ``.npy`` file."""
    try:
        with path.open("rb") as file:
            shape, fortran, dtype, start = read_header(file)
        order: Literal["C", "F"] = "F" if fortran else "C"
        mapped = 0 not in shape  # nothing cannot be mapped
        array: Array = (
            np.memmap(path, dtype, "r", start, shape, order) if mapped else np.empty(shape, dtype)
        )
    except (ValueError, EOFError, OverflowError) as error:
        raise unreadable(path, error) from error
    return array_stack(array, given, wanted)


def read_npz(path: Path, info: ZipInfo, given: Given, wanted: Wanted) -> Stack:
    """An array of an ``.npz`` archive, unpacked as it is read. Raises FeedError where it does not
    fit the model, or must be unpacked at once and is too large for that."""
    found = member(path, info)
    wanted.check_shape(found.shape, path)
    if found.fortran or wanted.axis:
        return array_stack(found.whole(), given, wanted)
    return MemberStack(found, wanted.scaling(given), single=wanted.is_one(found.shape))


def array_stack(array: Array, given: Given, wanted: Wanted) -> Stack:
    """``array`` as samples: an array that is exactly one sample becomes one. Raises FeedError where
    it does not fit the model."""
    wanted.check_shape(array.shape, None)
    if wanted.is_one(array.shape):
        return ArrayStack(array[None], wanted.scaling(given))
    return ArrayStack(np.moveaxis(array, wanted.axis or 0, 0), wanted.scaling(given))


def read_raw(path: Path, given: Given, wanted: Wanted) -> Stack:
    """Little-endian numbers of the model's dtype, or of ``given.dtype``."""
    dtype = element_type(given.dtype) if given.dtype else wanted.dtype
    if dtype is None:
        raise FeedError(
            f"{path} is raw binary, and nothing says what its numbers are",
            hint="for instance --dtype float32",
        )
    size = path.stat().st_size
    if not size or size % dtype.itemsize:
        raise FeedError(
            f"{path} has {size:,} bytes, which is no number of {dtype} values",
            hint=f"{wanted}; --dtype names another element type",
        )
    numbers = np.memmap(path, dtype.newbyteorder("<"), "r")
    return windows(numbers, path, given, wanted)


def windows(
    numbers: Array,
    path: Path,
    given: Given,
    wanted: Wanted,
    *,
    kind: str = "",
    scaling: Callable[[Array], Array] | None = None,
) -> Stack:
    """Samples cut from a row of numbers, one every ``given.hop`` (one sample's length without),
    and what ``scaling`` makes of them where it is not the user's.

    Raises FeedError when the numbers are not a whole number of samples.
    """
    hop = given.hop
    shape = _complete(wanted, len(numbers), path)
    length = math.prod(shape)
    if len(numbers) < length or (hop is None and len(numbers) % length):
        raise FeedError(
            f"{path} holds {len(numbers):,} values{kind}; {wanted}, {length:,} values a sample",
            hint="--hop N starts a sample every N values; a model of features, such as spectra, "
            "needs them computed first",
        )
    if hop is not None and hop < 1:
        raise FeedError(f"a hop of {hop} is not possible", hint="give 1 or more")
    view = np.lib.stride_tricks.sliding_window_view(numbers, length)[:: hop or length]
    return _Windows(view, shape, scaling or wanted.scaling(given))


class _Windows:
    """Windows in the shape of samples; reshaping overlapping windows at once would copy all."""

    def __init__(
        self, view: Array, shape: tuple[int, ...], scaling: Callable[[Array], Array]
    ) -> None:
        self._view, self._shape, self._scaling = view, shape, scaling

    def __len__(self) -> int:
        return len(self._view)

    def read(self, start: int, stop: int) -> Array:
        rows = np.ascontiguousarray(self._view[start:stop])
        return self._scaling(rows.reshape(-1, *self._shape))


def _complete(wanted: Wanted, count: int, path: Path) -> tuple[int, ...]:
    """One sample's shape; a single open size is what the file fills."""
    shape: tuple[Any, ...] = (None,) if wanted.shape is None else wanted.shape
    if shape.count(None) > 1:
        raise FeedError(
            f"{wanted}, and {path} does not say how its {count:,} values are laid out",
            hint="--shape gives one sample's shape",
        )
    known = math.prod(size for size in shape if size is not None)
    return tuple(max(1, count // known) if size is None else size for size in shape)


__all__ = ["array_stack", "read_npy", "read_npz", "read_raw", "windows"]
