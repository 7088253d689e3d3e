"""``.npy``, ``.npz`` and raw binary files. Files are data: pickles are refused."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from layertap.cli.inputs.given import Given, Scaling, Wanted, element_type
from layertap.cli.inputs.stacks import ArrayStack, Stack
from layertap.core.dtypes import Array
from layertap.errors import FeedError


def read_npy(path: Path, given: Given, wanted: Wanted) -> Stack:
    """The array of a ``.npy`` file, mapped rather than loaded."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise unreadable(path, error) from error
    return ArrayStack(with_samples(array, wanted), given.scaling)


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of an ``.npz`` archive by name."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise unreadable(path, error) from error


def with_samples(array: Array, wanted: Wanted) -> Array:
    """``array`` with samples on axis 0; an array that is exactly one sample becomes one."""
    one = wanted.shape is not None and array.ndim == len(wanted.shape)
    return array[None] if one or array.ndim == 0 else array


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


def windows(numbers: Array, path: Path, given: Given, wanted: Wanted, *, kind: str = "") -> Stack:
    """Samples cut from a row of numbers, one every ``given.hop`` (one sample's length without).

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
    return _Windows(view, shape, given.scaling)


class _Windows:
    """Windows in the shape of samples; reshaping overlapping windows at once would copy all."""

    def __init__(self, view: Array, shape: tuple[int, ...], scaling: Scaling) -> None:
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


def unreadable(path: Path, error: Exception) -> FeedError:
    """The error for a file that is not what its name says."""
    return FeedError(
        f"cannot read {path}: {error}",
        hint="inputs are plain data: pickled objects are not loaded",
    )


__all__ = ["read_npy", "read_npz", "read_raw", "unreadable", "windows", "with_samples"]
