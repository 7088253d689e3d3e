"""Carry out a plan: feeds in, captures into a sink. Every runtime runs through here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, Feeds, slice_feed
from layertap.core.graph import TapPoint
from layertap.core.plan import Plan
from layertap.core.protocols import Observing, Pass, Remembering, Session, Sink
from layertap.errors import BudgetExceeded, FeedError, RunError


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, after each batch; the totals are None while unknown."""

    samples: int
    total_samples: int | None
    batches: int
    total_batches: int | None
    bytes: int


OnProgress = Callable[[Progress], None]


def execute(
    session: Session,
    plan: Plan,
    feeds: Feeds,
    sink: Sink,
    *,
    budget: int | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Run ``plan`` over ``feeds`` and write every capture into ``sink``.

    Samples that the sink already holds are skipped without running them. The sink is closed in
    every case, with what was committed intact. Raises whatever the session, the feeds or the sink
    raise, and BudgetExceeded as soon as the captures pass ``budget`` bytes.
    """
    complete = False
    try:
        run = _Run(session, plan, sink, budget)
        run.constants()
        for batches, (feed, samples) in enumerate(feeds, 1):
            run.batch(feed, samples)
            if on_progress is not None:
                on_progress(Progress(run.samples, feeds.samples, batches, feeds.batches, run.bytes))
        if not run.samples:
            raise FeedError("the input holds no samples", hint="give at least one")
        run.check_found()
        complete = True
    finally:
        if isinstance(session, Observing) and isinstance(sink, Remembering):
            sink.remember(session.observed)
        sink.close(complete)


def weights_digest(session: Session) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all weights that can be read."""
    digest = hashlib.sha256()
    for tap in session.graph.of_kind("weight"):
        if not tap.untappable:
            value = session.read(tap)
            digest.update(f"{tap.name}\0{value.dtype.name}{value.shape}\0".encode())
            digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class _Run:
    """One execution of a plan: what is fixed for all batches, and the counts so far."""

    def __init__(self, session: Session, plan: Plan, sink: Sink, budget: int | None) -> None:
        self.session, self.sink, self.budget = session, sink, budget
        self.weights = [tap for tap in plan.taps if tap.per == "run"]
        self.awaited = [tap.name for tap in plan.taps if tap.per != "run"]
        self.passes: list[Pass] = [session.prepare(taps) for taps in plan.passes]
        self.skip = sink.samples
        self.found = self.skip > 0
        self.samples = 0
        self.bytes = 0
        self.rows = 0

    def constants(self) -> None:
        for tap in self.weights if self.skip == 0 else ():
            self._write(tap, self.session.read(tap))

    def batch(self, feed: Feed, samples: int) -> None:
        self.samples += samples
        skipped = min(self.skip, samples)
        if skipped:
            self.skip -= skipped
            self.sink.skip(skipped, slice_feed(feed, 0, skipped, samples))
            feed, samples = slice_feed(feed, skipped, samples, samples), samples - skipped
        if not samples:
            return
        done = 0
        for piece, rows in self._pieces(feed, samples):
            self.rows = rows
            for run_pass in self.passes:
                run_pass(piece, self._emit)
            # Piece by piece, so that the sink knows which sample a row belongs to when a tap
            # appears in some pieces only.
            self.sink.commit(rows, slice_feed(feed, done, done + rows, samples))
            done += rows

    def check_found(self) -> None:
        """Raise RunError where nothing of what was asked for was called."""
        if self.awaited and not self.found:
            raise RunError(
                f"{self.awaited[0]!r} has no value: the model did not call it",
                hint="it may be in a branch that these inputs do not take, or the model uses its "
                "weights without calling it, as PyTorch's MultiheadAttention does with out_proj",
            )

    def _pieces(self, feed: Feed, samples: int) -> Iterator[tuple[Feed, int]]:
        """The feed cut into what one pass of this session takes."""
        able = self.session.capabilities
        if not able.batched:
            for i in range(samples):
                one = slice_feed(feed, i, i + 1, samples)
                yield {name: value[0] for name, value in one.items()}, 1
        elif able.batch is None:
            yield feed, samples
        elif samples % able.batch:
            raise FeedError(
                f"the batch has {samples} samples, the model takes exactly {able.batch} at a time",
                hint=f"pass a multiple of {able.batch} samples",
            )
        else:
            for i in range(0, samples, able.batch):
                yield slice_feed(feed, i, i + able.batch, samples), able.batch

    def _emit(self, tap: TapPoint, value: Array) -> None:
        self.found = True
        if tap.per == "batch":
            value = value[None]
        elif value.ndim == 0 or value.shape[0] != self.rows:
            raise RunError(
                f"{tap.name!r} has shape {value.shape} for a batch of {self.rows}: "
                "its first axis does not count samples",
                hint="run one sample at a time, with batch_size=1",
            )
        self._write(tap, value)

    def _write(self, tap: TapPoint, rows: Array) -> None:
        self.bytes += rows.nbytes
        if self.budget is not None and self.bytes > self.budget:
            raise BudgetExceeded(self.bytes, self.budget)
        self.sink.write(tap, rows)
