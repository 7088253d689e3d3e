"""Read back the rows of one tap, in whichever way they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.graph import TapPoint
from layertap.core.protocols import Json
from layertap.errors import StoreError
from layertap.store.elements import narrow, stored_dtype
from layertap.store.failure import damaged
from layertap.store.layout import DOCUMENT, Layout, parse_document, read_json
from layertap.store.reading import blocks, read_rows

NUMBERS, VALUES, SHAPES = "~samples", "~values", "~shapes"
SUFFIXES = "", NUMBERS, VALUES, SHAPES

BATCH = "~batch"
"""What the arrays of a tap are called when it has a row per batch and had one per sample."""

RANK = 8
"""Axes of a ragged row that ``~shapes`` has room for."""


class ZarrRows:
    """The committed rows of one tap on disk; nothing is read before it is asked for."""

    def __init__(self, root: Path, node: str, tap: TapPoint, rows: int, flags: str) -> None:
        self._root, self._node, self._tap = root, node, tap
        self._rows, self._flags = rows, flags

    def __len__(self) -> int:
        return self._rows

    @property
    def samples(self) -> Array:
        if "sparse" not in self._flags:
            return np.arange(self._rows, dtype=np.int64)
        folder, layout, _ = self._open(NUMBERS)
        if layout.dtype != np.int64 or layout.row_shape:
            raise damaged(folder, "does not number samples")
        return read_rows(folder, layout, 0, self._rows).astype(np.int64, copy=False)

    def read(self, start: int, stop: int) -> Array | list[Array]:
        start, stop, _ = slice(start, stop).indices(self._rows)
        if "ragged" in self._flags:
            return self._read_ragged(start, max(start, stop))
        if not self._rows:
            return self._nothing()
        folder, layout, dtype = self._open("", counted=self._tap.per != "run")
        return narrow(read_rows(folder, layout, start, stop), dtype)

    def _nothing(self) -> Array:
        known = self._tap.row_shape or ()
        dtype = numpy_dtype(self._tap.dtype) or np.dtype(np.float32)
        return np.empty((0, *(size or 0 for size in known)), dtype)

    def _read_ragged(self, start: int, stop: int) -> list[Array]:
        folder, layout, dtype = self._open(VALUES)
        if layout.row_shape:
            raise damaged(folder, "is not flat")
        shapes = self._shapes(start, stop)
        ends = self._ends
        first = int(ends[start])
        values = narrow(read_rows(folder, layout, first, int(ends[stop])), dtype)
        return [
            values[ends[start + i] - first : ends[start + i + 1] - first].reshape(shape[shape >= 0])
            for i, shape in enumerate(shapes)
        ]

    def _shapes(self, start: int, stop: int) -> Array:
        folder, layout, _ = self._open(SHAPES)
        return read_rows(folder, _is_shapes(folder, layout), start, stop)

    @cached_property
    def _ends(self) -> Array:
        """Where each row begins among the values, int64, one more than there are rows."""
        folder, layout, _ = self._open(SHAPES)
        sizes = [
            row_sizes(block) for block in blocks(folder, _is_shapes(folder, layout), len(self))
        ]
        if any((size < 0).any() for size in sizes):
            raise damaged(folder, "holds impossible shapes")
        return np.concatenate([np.zeros(1, np.int64), *sizes]).cumsum()

    def _open(self, suffix: str, *, counted: bool = True) -> tuple[Path, Layout, np.dtype[Any]]:
        folder = self._root / f"{self._node}{suffix}"
        path = folder / DOCUMENT
        found = read_json(path)
        layout = parse_document(path, found, counted=counted)
        return folder, layout, original_dtype(path, found["attributes"], layout)


def _is_shapes(folder: Path, layout: Layout) -> Layout:
    if layout.dtype != np.int64 or layout.row_shape != (RANK,):
        raise damaged(folder, "does not hold shapes")
    return layout


def row_sizes(shapes: Array) -> Array:
    """Elements of each row, from shapes (n, RANK) padded with -1."""
    sizes: Array = np.where(shapes < 0, 1, shapes).prod(axis=1)
    return sizes


def original_dtype(path: Path, attributes: Mapping[str, Json], layout: Layout) -> np.dtype[Any]:
    """What the runtime held. Raises StoreError when that is not what lies on disk, widened."""
    name = attributes.get("raw_dtype")
    try:
        dtype = numpy_dtype(name) if isinstance(name, str) else None
        fits = dtype is not None and stored_dtype(dtype) == layout.dtype
    except (StoreError, TypeError):
        fits = False
    if dtype is None or not fits:
        raise damaged(path, f"has elements of type {name!r} stored as {layout.dtype.name}")
    return dtype
