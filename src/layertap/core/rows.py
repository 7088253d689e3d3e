"""From feeds to executions of a model, and from its values to rows: one per sample where an axis
counts samples, else one per execution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, slice_feed
from layertap.core.graph import TapPoint
from layertap.core.plan import Plan
from layertap.core.protocols import Capabilities, Sink
from layertap.errors import FeedError

_BLOCK_BYTES = 32 << 20
"""What a call of a pass may capture at most, unless one execution is more."""


class Cutter:
    """Cuts feeds into what one call of a session's pass takes."""

    def __init__(self, able: Capabilities, plan: Plan) -> None:
        self.able = able
        self.block = able.block
        if able.block > 1:
            size = (able.batch or 1) * (plan.sample_bytes or 0)
            self.block = max(1, min(able.block, _BLOCK_BYTES // size if size else able.block))

    def pieces(self, feed: Feed, samples: int) -> Iterator[tuple[Feed, int]]:
        """Feeds that one call of a pass takes, each with its number of samples."""
        able = self.able
        if able.batched and able.batch is None:
            if samples:
                yield feed, samples
            return
        size = able.batch or 1
        if samples % size:
            raise FeedError(
                f"the batch has {samples} samples, the model takes exactly {size} at a time",
                hint=f"pass a multiple of {size} samples",
            )
        for start in range(0, samples, size * self.block):
            stop = min(samples, start + size * self.block)
            piece = slice_feed(feed, start, stop, samples)
            if not able.batched and able.block == 1:
                piece = {name: value[0] for name, value in piece.items()}
            yield piece, stop - start

    def executions(self, samples: int) -> tuple[int, int]:
        """The samples of one execution, and how many executions ``samples`` take."""
        if self.able.batched and self.able.batch is None:
            return samples, 1
        size = self.able.batch or 1
        return size, samples // size


class RowMaker:
    """Turns the values of ``taps`` into rows.

    A tap whose axis does not count the samples of an execution has one row per execution from then
    on, and the sink puts together again what it has of it.
    """

    def __init__(self, taps: Sequence[TapPoint], sink: Sink, *, batched: bool) -> None:
        self.demoted = list(sink.demoted)
        self.taps = {t.name: per_batch(t) if t.name in self.demoted else t for t in taps}
        self.sink, self.batched = sink, batched
        self._done: list[tuple[int, int]] = []
        self._size = 0
        self._emitted: dict[str, int] = {}

    def begin(self, samples: int) -> None:
        """What comes now is of executions of ``samples`` samples each."""
        self._size = samples
        self._emitted.clear()

    def executed(self, samples: int, times: int) -> None:
        """Executions of ``samples`` samples are complete, ``times`` of them."""
        if self._done and self._done[-1][0] == samples:
            times += self._done.pop()[1]
        if times:
            self._done.append((samples, times))

    def of(self, tap: TapPoint, values: Array) -> tuple[TapPoint, Array]:
        """The tap as it is known by now, and the rows of ``values``, which are those of one or more
        executions, stacked on axis 0."""
        tap = self.taps[tap.name]
        if tap.per == "sample" and self.batched:
            axis = tap.batch_axis + 1
            if values.ndim > axis and values.shape[axis] == self._size:
                self._emitted[tap.name] = self._emitted.get(tap.name, 0) + len(values)
                return tap, _samples(values, axis)
            tap = self._demote(tap)
        return tap, values

    def _demote(self, tap: TapPoint) -> TapPoint:
        self.taps[tap.name] = now = per_batch(tap)
        pending = self._emitted.get(tap.name, 0)
        self.sink.demote(tap, [*self._done, *([(self._size, pending)] if pending else [])])
        self.demoted.append(tap.name)
        self.sink.note({"demoted": list(self.demoted)})
        return now


def per_batch(tap: TapPoint) -> TapPoint:
    """``tap`` with a row per batch; the size of what was its sample axis is not known."""
    shape = tap.shape
    if shape is not None and tap.per == "sample":
        shape = (*shape[: tap.batch_axis], None, *shape[tap.batch_axis + 1 :])
    return replace(tap, per="batch", shape=shape)


def executions_of(rows: Array, samples: int, axis: int) -> Array:
    """Rows (n * samples, *row shape) as what they came from, stacked: (n, *tensor shape) with the
    samples on ``axis`` of the tensor. A view of contiguous rows."""
    whole = rows.reshape(len(rows) // samples, samples, *rows.shape[1:])
    return np.moveaxis(whole, 1, axis + 1)


def _samples(values: Array, axis: int) -> Array:
    """Values (executions, ..., samples, ...) as rows, one per sample."""
    if axis == 1 and len(values) == 1:
        one: Array = values[0]
        return one
    rows = np.ascontiguousarray(np.moveaxis(values, axis, 1)) if axis > 1 else values
    return rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:])
