"""A run kept in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from layertap.core.captures import Run
from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.feeds import Feed
from layertap.core.graph import TapPoint
from layertap.core.protocols import Json
from layertap.errors import StoreError


class MemoryRows:
    """Rows of one tap as the blocks in which they came; joined when first read. What cannot be
    written to, since it is the value of several taps, is copied then: each has its own."""

    def __init__(self, tap: TapPoint) -> None:
        self._tap = tap
        self._blocks: list[Array] = []
        self._spans: list[range] = []
        self._ragged = False
        self._rows = 0

    def append(self, block: Array, first: int) -> None:
        """Add rows that belong to the samples from ``first`` on."""
        self._ragged |= bool(self._blocks) and self._blocks[0].shape[1:] != block.shape[1:]
        self._blocks.append(block)
        self._rows += len(block)
        if self._spans and self._spans[-1].stop == first:
            self._spans[-1] = range(self._spans[-1].start, first + len(block))
        else:
            self._spans.append(range(first, first + len(block)))

    def demoted(self, tap: TapPoint, executions: Sequence[tuple[int, int]]) -> MemoryRows:
        """The same with a row per execution, which sample rows are put together to again."""
        rows, samples = self.read(0, self._rows), self.samples
        whole = MemoryRows(tap)
        first = number = 0
        for size, times in executions:
            for _ in range(times):
                start, stop = np.searchsorted(samples, (first, first + size))
                if stop > start:
                    whole.append(
                        np.stack(list(rows[start:stop]), axis=tap.batch_axis)[None], number
                    )
                first, number = first + size, number + 1
        return whole

    def __len__(self) -> int:
        return self._rows

    @property
    def samples(self) -> Array:
        spans = [np.arange(span.start, span.stop, dtype=np.int64) for span in self._spans]
        return np.concatenate([np.empty(0, np.int64), *spans])

    def read(self, start: int, stop: int) -> Array | list[Array]:
        shared = not all(block.flags.writeable for block in self._blocks)
        if self._ragged:
            if shared:
                self._blocks = [block.copy() for block in self._blocks]
            rows = [block[i, ...] for block in self._blocks for i in range(len(block))]
            return rows[start:stop]
        if len(self._blocks) > 1 or shared:
            self._blocks = [np.concatenate(self._blocks)]  # a copy, of one as of many
        if self._blocks:
            return self._blocks[0][start:stop]
        known = self._tap.row_shape or ()
        dtype = numpy_dtype(self._tap.dtype) or np.dtype(np.float32)
        return np.empty((0, *(size or 0 for size in known)), dtype)


class MemoryStore:
    """A sink that keeps every capture; :meth:`run` gives them back."""

    def __init__(self, taps: Sequence[TapPoint], provenance: Mapping[str, Json]) -> None:
        self.samples = 0
        self._batches = 0
        self._taps = taps
        self._provenance = provenance
        self._rows = {tap.name: MemoryRows(tap) for tap in taps}
        self._pending: list[tuple[TapPoint, Array]] = []
        self._complete = False

    def write(self, tap: TapPoint, rows: Array) -> None:
        self._pending.append((tap, rows if tap.per != "run" else rows[None]))

    def commit(self, samples: int, feed: Feed) -> None:
        first = {"sample": self.samples, "batch": self._batches, "run": 0}
        written: dict[str, int] = {}
        batches = 1
        for tap, rows in self._pending:
            done = written.get(tap.name, 0)
            self._rows[tap.name].append(rows, first[tap.per] + done)
            written[tap.name] = done + len(rows)
            if tap.per == "batch":
                batches = max(batches, written[tap.name])
        self._pending.clear()
        self.samples += samples
        self._batches += batches

    def skip(self, samples: int, feed: Feed) -> None:
        raise StoreError("a run in memory holds no samples to skip", hint="write it to a path")

    def remember(self, observed: Mapping[str, int]) -> None:
        self._provenance = {**self._provenance, "observed": dict(observed)}

    def demote(self, tap: TapPoint, executions: Sequence[tuple[int, int]]) -> None:
        later = [rows for other, rows in self._pending if other.name == tap.name]
        self._pending = [item for item in self._pending if item[0].name != tap.name]
        old = self._rows[tap.name]
        for rows in later:
            old.append(rows, self.samples)
        now = replace(tap, per="batch")
        self._taps = [now if other.name == tap.name else other for other in self._taps]
        self._rows[tap.name] = old.demoted(now, executions)

    def note(self, facts: Mapping[str, Json]) -> None:
        self._provenance = {**self._provenance, **facts}

    def close(self, complete: bool) -> None:
        self._pending.clear()
        self._complete = complete

    def run(self) -> Run:
        """What was committed."""
        rows = [(tap, self._rows[tap.name]) for tap in self._taps]
        return Run(rows, self._provenance, samples=self.samples, complete=self._complete)
