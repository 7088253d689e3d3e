"""Carry out a plan: feeds in, captures into a sink. Every runtime runs through here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, Feeds, slice_feed
from layertap.core.graph import TapPoint
from layertap.core.plan import Plan
from layertap.core.protocols import Observing, Pass, Remembering, Session, Sink
from layertap.core.rows import Cutter, RowMaker
from layertap.core.verify import Verified
from layertap.errors import BudgetExceeded, FeedError, RunError, RuntimeFailure


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, after each batch; the totals are None while unknown."""

    samples: int
    total_samples: int | None
    batches: int
    total_batches: int | None
    bytes: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a plan is carried out.

    budget: bytes that the captures may take. verify: run each batch twice, and compare.
    """

    budget: int | None = None
    verify: bool = False
    on_progress: OnProgress | None = None


def execute(
    session: Session, plan: Plan, feeds: Feeds, sink: Sink, settings: Settings | None = None
) -> None:
    """Run ``plan`` over ``feeds`` and write every capture into ``sink``.

    Samples that the sink already holds are skipped without running them. The sink is closed in
    every case, with what was committed intact. Raises whatever the session, the feeds or the sink
    raise, BudgetExceeded as soon as the captures pass the budget, and RunError where a batch that
    is verified gives other bits the second time.
    """
    settings = settings or Settings()
    complete = False
    try:
        run = _Run(session, plan, sink, settings)
        run.constants()
        for batches, (feed, samples) in enumerate(feeds, 1):
            run.batch(feed, samples)
            if settings.on_progress is not None:
                settings.on_progress(
                    Progress(run.samples, feeds.samples, batches, feeds.batches, run.bytes)
                )
        if not run.samples:
            raise FeedError("the input holds no samples", hint="give at least one")
        never_ran = run.never_ran()
        if never_ran:
            sink.note({"never_ran": never_ran})
        complete = True
    finally:
        if feeds.clipped:
            sink.note({"clipped": feeds.clipped})
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

    def __init__(self, session: Session, plan: Plan, sink: Sink, settings: Settings) -> None:
        self.session, self.sink, self.budget = session, sink, settings.budget
        self.weights = [tap for tap in plan.taps if tap.per == "run"]
        self.awaited = [tap.name for tap in plan.taps if tap.per != "run"]
        self.passes: list[Pass] = [session.prepare(taps) for taps in plan.passes]
        if settings.verify:
            self.passes = list(map(Verified, self.passes))
        self.rows = RowMaker(plan.taps, sink, batched=session.capabilities.batched)
        self.cutter = Cutter(session.capabilities, plan)
        self.skip = sink.samples
        self.resumed = self.skip > 0
        self.ran: set[str] = set()
        self.samples = 0
        self.bytes = 0

    def constants(self) -> None:
        for tap in self.weights if self.skip == 0 else ():
            self._write(tap, self.session.read(tap))

    def batch(self, feed: Feed, samples: int) -> None:
        self.samples += samples
        skipped = min(self.skip, samples)
        if skipped:
            self.skip -= skipped
            self.sink.skip(skipped, slice_feed(feed, 0, skipped, samples))
            self.rows.executed(*self.cutter.executions(skipped))
            feed, samples = slice_feed(feed, skipped, samples, samples), samples - skipped
        done, first = 0, self.samples - samples
        for piece, count in self.cutter.pieces(feed, samples):
            self._piece(piece, count, first + done)
            # Piece by piece, so that the sink knows which sample a row belongs to when a tap
            # appears in some pieces only.
            size, times = self.cutter.executions(count)
            self.sink.commit(count, slice_feed(feed, done, done + count, samples), times)
            self.rows.executed(size, times)
            done += count

    def _piece(self, feed: Feed, samples: int, first: int) -> None:
        """Run one piece, whose first sample has the number ``first``."""
        size, executions = self.cutter.executions(samples)
        self.rows.begin(size)
        try:
            for run_pass in self.passes:
                run_pass(feed, self._emit)
        except RuntimeFailure as error:
            complete = error.execution
            if complete and len(self.passes) == 1:
                done = complete * size
                self.sink.commit(done, slice_feed(feed, 0, done, samples), complete)
            if complete is not None and executions > 1:
                error.message = f"at sample {first + complete * size}: {error.message}"
            raise

    def never_ran(self) -> list[str]:
        """The taps that no batch has given a value. Raises RunError where there are no others."""
        missing = [name for name in self.awaited if name not in self.ran]
        if self.resumed:
            return []  # the batches before may have given some
        if missing and not self.ran:
            raise RunError(
                f"{missing[0]!r} has no value: the model did not call it",
                hint="it may be in a branch that these inputs do not take, or the model uses its "
                "weights without calling it, as PyTorch's MultiheadAttention does with out_proj",
            )
        return missing

    def _emit(self, tap: TapPoint, values: Array) -> None:
        self.ran.add(tap.name)
        self._write(*self.rows.of(tap, values))

    def _write(self, tap: TapPoint, rows: Array) -> None:
        self.bytes += rows.nbytes
        if self.budget is not None and self.bytes > self.budget:
            raise BudgetExceeded(self.bytes, self.budget)
        self.sink.write(tap, rows)
