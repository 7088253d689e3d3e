"""How the rows of one tap are kept in Zarr arrays: regular, with absent samples, or ragged.

regular: one array, row i belongs to sample i.
sparse: a companion ``<array>~samples`` (int64) has the number of the sample of each row.
ragged: shapes differ between rows. ``<array>~values`` has the values of all rows one after
another, flat, and ``<array>~shapes`` (int64) the shape of each row, padded with -1.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from layertap.core.dtypes import Array
from layertap.core.graph import TapPoint, format_shape
from layertap.core.protocols import Json
from layertap.core.rows import executions_of, per_batch
from layertap.errors import StoreError
from layertap.store.arrays import ArrayWriter, OpenFiles
from layertap.store.elements import narrow, stored_dtype, widen
from layertap.store.executions import Executions, groups
from layertap.store.failure import check_dtype
from layertap.store.layout import (
    CHUNK_BYTES,
    DOCUMENT,
    LARGEST_PACKED,
    Layout,
    chunk_rows,
    parse_document,
    read_json,
)
from layertap.store.metadata import quantization_to_json
from layertap.store.reading import blocks, check_rows, read_rows
from layertap.store.rows import (
    BATCH,
    NUMBERS,
    RANK,
    SHAPES,
    SUFFIXES,
    VALUES,
    original_dtype,
    row_sizes,
)

_INT64 = np.dtype("<i8")
_NUMBERS_AT_A_TIME = 1 << 16


class TapWriter:
    """Writes the rows of one tap; ``rows`` counts the committed ones,
    ``pending`` those since.

    ``flags`` tells how they are stored, as in the journal. Raises OSError as it comes, and
    StoreError for rows that cannot be stored.
    """

    def __init__(
        self, root: Path, node: str, tap: TapPoint, files: OpenFiles, level: int | None
    ) -> None:
        self.tap, self.rows, self.flags = tap, 0, ""
        self._root, self._node, self._files, self._level = root, node, files, level
        self._arrays: dict[str, ArrayWriter] = {}
        self._dtype: np.dtype[Any] | None = None
        self.pending = 0
        self._axis = f"{node}{NUMBERS}"

    def resume(self, rows: int, flags: str) -> None:
        """Go on after ``rows`` committed rows."""
        self.rows, self.flags = rows, flags
        if "ragged" in flags:
            self._reopen(SHAPES, rows)
            self._reopen(VALUES, self._committed_values())
        elif rows:
            self._reopen("", rows)
        if "sparse" in flags:
            self._reopen(NUMBERS, rows)
        discard(self._root, self._node, keep=self._arrays)

    def write(self, rows: Array) -> None:
        """Add rows (n, ...), or the value of a tap that never changes."""
        self._check_dtype(rows.dtype)
        counted = self.tap.per != "run"
        stored = widen(rows)
        shape = stored.shape[1:] if counted else stored.shape
        main = self._arrays.get("")
        if "ragged" not in self.flags and main is not None and main.layout.row_shape != shape:
            self._make_ragged(main)
        if "ragged" in self.flags:
            self._append_ragged(stored, shape)
        else:
            count = len(stored) if counted else 1
            (main or self._create("", stored.dtype, shape, count, counted)).append(stored)
        self.pending += len(stored) if counted else 1

    def commit(self, first: int, total: int) -> tuple[int, str] | None:
        """Rows written since the last commit belong to samples ``first`` on, of ``total`` by now.

        Returns what the journal says about this tap: rows and flags, None where they are as
        expected. Counts only when the journal has it.
        """
        rows = self.rows + self.pending
        if rows > total:
            raise StoreError(
                f"{self.tap.name!r} has {self.pending} rows for {total - first} samples",
                hint="this is a fault of the runtime",
            )
        if self.tap.per != "run":
            if rows != total and "sparse" not in self.flags:
                self._make_sparse()
            if "sparse" in self.flags and self.pending:
                numbers = np.arange(first, first + self.pending, dtype=_INT64)
                self._arrays[NUMBERS].append(numbers)
        self.rows, self.pending = rows, 0
        return None if rows == total and not self.flags else (rows, self.flags)

    def publish(self, expected: int, *, final: bool = False) -> None:
        """Bring the arrays' documents up to the committed rows."""
        regular = "batch" if self.tap.per == "batch" else "sample"
        axis = self._axis if "sparse" in self.flags or self.rows != expected else regular
        for suffix, array in self._arrays.items():
            if suffix in (VALUES, SHAPES) and "" in self._arrays:
                continue  # the switch to ragged is not committed
            if suffix == VALUES:
                rows = self._committed_values() if self.pending else array.rows
                array.publish(rows, f"{self._node}{VALUES}~axis0", final=final)
            elif self.tap.per != "run" or self.rows:
                array.publish(self.rows, axis, final=final)

    def remove_retired(self) -> None:
        """Delete the arrays that ragged ones have replaced, once the journal says so."""
        if "ragged" in self.flags and "" in self._arrays:
            self._arrays.pop("").remove()

    def remove(self) -> None:
        """Delete all arrays of the tap."""
        while self._arrays:
            self._arrays.popitem()[1].remove()

    def demoted(self, tap: TapPoint, executions: Executions, committed: int) -> TapWriter:
        """A writer that has a row per execution, which the rows so far are put together to, those
        of the first ``committed`` samples as committed ones. The arrays here stay as they are."""
        node = f"{self._node}{BATCH}"
        discard(self._root, node)
        whole = TapWriter(self._root, node, per_batch(tap), self._files, self._level)
        whole.flags = "batch"
        rows = _Written(self._arrays, self._dtype)
        later = np.arange(committed, committed + self.pending, dtype=_INT64)
        for numbers, pending in ((self._numbers(), False), ([later], True)):
            for first, samples, times in groups(executions, numbers):
                for block in rows.next(samples, times):
                    whole.write(executions_of(block, samples, tap.batch_axis))
                if not pending:
                    whole.commit(first, first + times)
        return whole

    def _numbers(self) -> Iterator[Array]:
        """The samples of the committed rows, a few at a time."""
        if "sparse" in self.flags:
            numbers = self._arrays[NUMBERS]
            yield from blocks(numbers.folder, numbers.layout, self.rows)
            return
        for start in range(0, self.rows, _NUMBERS_AT_A_TIME):
            yield np.arange(start, min(self.rows, start + _NUMBERS_AT_A_TIME), dtype=_INT64)

    def _committed_values(self) -> int:
        shapes = self._arrays[SHAPES]
        sizes = blocks(shapes.folder, shapes.layout, self.rows)
        return sum(int(row_sizes(block).sum()) for block in sizes)

    def _make_ragged(self, main: ArrayWriter) -> None:
        """Copy the rows so far into the ragged arrays; the regular one stays until the commit."""
        shape, layout = main.layout.row_shape, main.layout
        values = self._create(VALUES, layout.dtype, (), max(1, math.prod(shape)), True)
        self._create(SHAPES, _INT64, (RANK,), 1, True)
        for block in blocks(main.folder, layout, main.rows):
            values.append(block.reshape(-1))
            self._append_shapes(shape, len(block))
        self.flags = " ".join([*self.flags.split(), "ragged"])

    def _append_ragged(self, stored: Array, shape: tuple[int, ...]) -> None:
        self._arrays[VALUES].append(stored.reshape(-1))
        self._append_shapes(shape, len(stored))

    def _append_shapes(self, shape: tuple[int, ...], count: int) -> None:
        if len(shape) > RANK:
            raise StoreError(
                f"{self.tap.name!r} changed its shape to {format_shape(shape)}",
                hint=f"shapes that differ between samples may have {RANK} axes at most",
            )
        padded = np.full((count, RANK), -1, _INT64)
        padded[:, : len(shape)] = shape
        self._arrays[SHAPES].append(padded)

    def _make_sparse(self) -> None:
        """From here on the sample of each row is written down; so far, row i was sample i."""
        numbers = self._create(NUMBERS, _INT64, (), 1, True)
        numbers.publish(0, self._axis)
        step = numbers.layout.chunk_rows
        for start in range(0, self.rows, step):
            numbers.append(np.arange(start, min(self.rows, start + step), dtype=_INT64))
        self.flags = " ".join(["sparse", *self.flags.split()])

    def _check_dtype(self, dtype: np.dtype[Any]) -> None:
        if self._dtype is None:
            stored_dtype(dtype)
            self._dtype = dtype
        check_dtype(self.tap, self._dtype, dtype)

    def _create(
        self, suffix: str, dtype: np.dtype[Any], shape: tuple[int, ...], rows: int, counted: bool
    ) -> ArrayWriter:
        row_bytes = math.prod(shape) * dtype.itemsize
        count = 1 if not counted else chunk_rows(rows, row_bytes, packed=self._level is not None)
        level = self._level if row_bytes * count < LARGEST_PACKED else None
        return self._add(suffix, Layout(dtype, shape, count, counted, level), 0)

    def _reopen(self, suffix: str, rows: int) -> ArrayWriter:
        path = self._root / f"{self._node}{suffix}" / DOCUMENT
        found = read_json(path)
        layout = parse_document(path, found, counted=self.tap.per != "run")
        check_rows(path.parent, layout, rows)
        if suffix in ("", VALUES):
            self._dtype = original_dtype(path, found["attributes"], layout)
        return self._add(suffix, layout, rows)

    def _add(self, suffix: str, layout: Layout, rows: int) -> ArrayWriter:
        folder = self._root / f"{self._node}{suffix}"
        first, rank = int(layout.counted), len(layout.row_shape)
        axes = tuple(f"{folder.name}~axis{i}" for i in range(first, first + rank))
        array = self._arrays[suffix] = ArrayWriter(
            folder,
            layout,
            self._files,
            dimensions=axes,
            attributes=self._attributes(suffix),
            resumed=rows,
        )
        return array

    def _attributes(self, suffix: str) -> dict[str, Json]:
        tap = self.tap
        # A lone surrogate, from a name that was not UTF-8, is no JSON for strict readers.
        name = tap.name.encode("utf-8", "backslashreplace").decode()
        if suffix in (NUMBERS, SHAPES) or self._dtype is None:
            return {"tap": name, "raw_dtype": _INT64.name}
        attributes: dict[str, Json] = {"tap": name, "kind": tap.kind, "op": tap.op}
        attributes["raw_dtype"] = self._dtype.name
        if tap.per == "sample" and tap.batch_axis:
            attributes["batch_axis"] = tap.batch_axis
        if tap.quantization is not None:
            attributes["quantization"] = quantization_to_json(tap.quantization)
        return attributes


class _Written:
    """What a tap's arrays hold, committed or not, from the first row on."""

    def __init__(self, arrays: Mapping[str, ArrayWriter], dtype: np.dtype[Any] | None) -> None:
        self._arrays, self._dtype = arrays, dtype
        self._row = self._value = 0

    def next(self, samples: int, times: int) -> Iterator[Array]:
        """The next ``samples * times`` rows, a few times ``samples`` of one shape at once."""
        if SHAPES in self._arrays:
            for _ in range(times):
                (shape,) = self._read(SHAPES, self._row, 1)
                yield self._flat(samples, tuple(shape[shape >= 0].tolist()))
                self._row += samples
            return
        size = samples * self._arrays[""].layout.row_bytes
        step = max(1, CHUNK_BYTES // max(1, size))
        for done in range(0, times, step):
            count = samples * min(step, times - done)
            yield self._narrow(self._read("", self._row, count))
            self._row += count

    def _flat(self, samples: int, shape: tuple[int, ...]) -> Array:
        count = samples * math.prod(shape)
        values = self._narrow(self._read(VALUES, self._value, count))
        self._value += count
        return values.reshape(samples, *shape)

    def _read(self, suffix: str, start: int, count: int) -> Array:
        array = self._arrays[suffix]
        return read_rows(array.folder, array.layout, start, start + count)

    def _narrow(self, stored: Array) -> Array:
        return stored if self._dtype is None else narrow(stored, self._dtype)


def discard(root: Path, node: str, keep: Container[str] = ()) -> None:
    """Delete what lies in the folders of a tap's arrays, but for those whose suffix is in
    ``keep``: what was not committed."""
    for suffix in SUFFIXES:
        if suffix not in keep:
            shutil.rmtree(root / f"{node}{suffix}", ignore_errors=True)
