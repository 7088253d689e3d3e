"""Keep captures in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layertap.core.captures import Run
from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.feeds import Feed
from layertap.core.graph import TapPoint
from layertap.core.protocols import Json
from layertap.core.rows import executions_of, per_batch
from layertap.errors import StoreError
from layertap.store.executions import Executions
from layertap.store.failure import check_dtype


class MemoryRows:
    """Rows of one tap as the blocks in which they came: each is of one or more whole executions.
    What is read is a copy."""

    def __init__(self, tap: TapPoint) -> None:
        self._tap = tap
        self._blocks: list[Array] = []
        self._numbers: list[int] = []
        self._ends: list[int] = []
        self._ragged = False
        self._dtype: np.dtype[Any] | None = None

    def check(self, dtype: np.dtype[Any]) -> None:
        """Raise StoreError unless the rows before were of this dtype, too."""
        check_dtype(self._tap, self._dtype, dtype)
        self._dtype = dtype

    def append(self, block: Array, first: int) -> None:
        """Add rows that belong to the samples from ``first`` on."""
        self._ragged |= bool(self._blocks) and self._blocks[0].shape[1:] != block.shape[1:]
        self._blocks.append(block)
        self._numbers.append(first)
        self._ends.append(len(self) + len(block))

    def demoted(self, tap: TapPoint, executions: Executions) -> MemoryRows:
        """The same with a row per execution, which sample rows are put together to again. Nothing
        is copied."""
        whole = MemoryRows(tap)
        whole._dtype = self._dtype
        for first, block in zip(self._numbers, self._blocks, strict=True):
            number, samples = executions.at(first)
            whole.append(executions_of(block, samples, tap.batch_axis), number)
        return whole

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def samples(self) -> Array:
        ends = np.array([0, *self._ends], np.int64)
        offsets = np.array(self._numbers, np.int64) - ends[:-1]
        return np.arange(ends[-1]) + np.repeat(offsets, np.diff(ends))

    def read(self, start: int, stop: int) -> Array | list[Array]:
        parts = self._parts(start, stop)
        if self._ragged:
            return [row.copy() for part in parts for row in _each(part)]
        if parts:
            return np.ascontiguousarray(np.concatenate(parts))  # a copy, of one as of many
        if self._blocks:
            return self._blocks[0][:0].copy()
        known = self._tap.row_shape or ()
        dtype = numpy_dtype(self._tap.dtype) or np.dtype(np.float32)
        return np.empty((0, *(size or 0 for size in known)), dtype)

    def _parts(self, start: int, stop: int) -> list[Array]:
        start, stop, _ = slice(start, stop).indices(len(self))
        parts = []
        i = bisect_right(self._ends, start)
        while start < stop:
            first = self._ends[i] - len(self._blocks[i])
            parts.append(self._blocks[i][start - first : stop - first])
            start, i = self._ends[i], i + 1
        return parts


def _each(rows: Array) -> list[Array]:
    return [rows[i, ...] for i in range(len(rows))]


class MemoryStore:
    """A sink that keeps every capture; :meth:`run` gives them back."""

    def __init__(self, taps: Sequence[TapPoint], provenance: Mapping[str, Json]) -> None:
        self.samples = 0
        self.demoted: list[str] = []
        self._batches = 0
        self._taps = taps
        self._provenance = provenance
        self._rows = {tap.name: MemoryRows(tap) for tap in taps}
        self._pending: list[tuple[TapPoint, Array]] = []
        self._complete = False

    def write(self, tap: TapPoint, rows: Array) -> None:
        self._rows[tap.name].check(rows.dtype)
        self._pending.append((tap, rows if tap.per != "run" else rows[None]))

    def commit(self, samples: int, feed: Feed, executions: int = 1) -> None:
        first = {"sample": self.samples, "batch": self._batches, "run": 0}
        written: dict[str, int] = {}
        for tap, rows in self._pending:
            done = written.get(tap.name, 0)
            self._rows[tap.name].append(rows, first[tap.per] + done)
            written[tap.name] = done + len(rows)
        self._pending.clear()
        self.samples += samples
        self._batches += executions

    def skip(self, samples: int, feed: Feed) -> None:
        raise StoreError("a run in memory holds no samples to skip", hint="write it to a path")

    def remember(self, observed: Mapping[str, int]) -> None:
        self._provenance = {**self._provenance, "observed": dict(observed)}

    def demote(self, tap: TapPoint, executions: Sequence[tuple[int, int]]) -> None:
        now, known = per_batch(tap), Executions(executions)
        self._taps = [now if other.name == tap.name else other for other in self._taps]
        self._rows[tap.name] = self._rows[tap.name].demoted(now, known)
        for i, (other, rows) in enumerate(self._pending):
            if other.name == tap.name:
                # The last ones of them: they are of one size in what is committed at once.
                samples = known.runs[-1][0]
                self._pending[i] = now, executions_of(rows, samples, tap.batch_axis)
        self.demoted.append(tap.name)

    def note(self, facts: Mapping[str, Json]) -> None:
        self._provenance = {**self._provenance, **facts}

    def close(self, complete: bool) -> None:
        self._pending.clear()
        self._complete = complete

    def run(self) -> Run:
        """What was committed."""
        rows = [(tap, self._rows[tap.name]) for tap in self._taps]
        return Run(rows, self._provenance, samples=self.samples, complete=self._complete)
