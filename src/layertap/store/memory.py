"""A run kept in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from layertap.core.captures import Run
from layertap.core.dtypes import Array
from layertap.core.feeds import Feed
from layertap.core.graph import TapPoint
from layertap.core.protocols import Json


class MemoryRows:
    """Rows of one tap as the blocks in which they came; joined when first read."""

    def __init__(self) -> None:
        self._blocks: list[Array] = []
        self._spans: list[range] = []

    def append(self, block: Array, first: int) -> None:
        """Add rows that belong to the samples from ``first`` on."""
        self._blocks.append(block)
        self._spans.append(range(first, first + len(block)))

    def __len__(self) -> int:
        return sum(map(len, self._spans))

    @property
    def samples(self) -> Array:
        return np.concatenate([np.empty(0, np.int64), *map(np.asarray, self._spans)]).astype(int)

    def read(self, start: int, stop: int) -> Array | list[Array]:
        if len({block.shape[1:] for block in self._blocks}) > 1:
            return [row for block in self._blocks for row in block][start:stop]
        if len(self._blocks) > 1:
            self._blocks = [np.concatenate(self._blocks)]
        return self._blocks[0][start:stop] if self._blocks else np.empty(0)


class MemoryStore:
    """A sink that keeps every capture; :meth:`run` gives them back."""

    def __init__(self, taps: Sequence[TapPoint], provenance: Mapping[str, Json]) -> None:
        self.samples = 0
        self._taps = taps
        self._provenance = provenance
        self._rows = {tap.name: MemoryRows() for tap in taps}
        self._pending: list[tuple[TapPoint, Array]] = []
        self._complete = False

    def write(self, tap: TapPoint, rows: Array) -> None:
        self._pending.append((tap, rows))

    def commit(self, samples: int, feed: Feed) -> None:
        written: dict[str, int] = {}
        for tap, rows in self._pending:
            kept = self._rows[tap.name]
            if tap.per == "run":
                kept.append(rows[None], 0)
                continue
            done = written.get(tap.name, self.samples if tap.per == "sample" else len(kept))
            kept.append(rows, done)
            written[tap.name] = done + len(rows)
        self._pending.clear()
        self.samples += samples

    def skip(self, samples: int, feed: Feed) -> None:
        raise AssertionError("a run in memory is never resumed")

    def close(self, complete: bool) -> None:
        self._pending.clear()
        self._complete = complete

    def run(self) -> Run:
        """What was committed."""
        rows = [(tap, self._rows[tap.name]) for tap in self._taps]
        return Run(rows, self._provenance, samples=self.samples, complete=self._complete)
