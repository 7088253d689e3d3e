"""Executions of a rewritten model in the worker."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed
from layertap.core.graph import TapPoint
from layertap.core.inputs import InputSpec, fed
from layertap.core.protocols import Emit
from layertap.errors import FeedError, RuntimeFailure
from layertap.runtimes.worker.process import Outcome, Worker, WorkerFailure

_FED = 4 << 20
"""Bytes that are fed at once at most, unless one execution takes more."""

_FIRST = 64
"""Executions that are asked for at once before it is known how many there is room for."""


class Program:
    """The model with further outputs, ``added``, and where the worker keeps it: as ``slot``, of
    which ``drop`` is told when the program is no longer used. What is read are ``taps``, which the
    engine knows by ``addresses``.

    ``generation``: that of the worker which has it loaded.
    """

    def __init__(
        self,
        taps: Sequence[TapPoint],
        added: Sequence[int],
        addresses: Sequence[int],
        slot: int,
        drop: Callable[[int], None],
        *,
        keep_state: bool,
    ) -> None:
        self.taps, self.added, self.addresses = tuple(taps), tuple(added), tuple(addresses)
        self.slot, self.keep_state = slot, keep_state
        self.generation = -1
        self.at_once = _FIRST
        weakref.finalize(self, drop, slot)

    def execute(self, worker: Worker, inputs: Sequence[Array], count: int) -> Outcome:
        """Execute for the first ``count`` rows of ``inputs``, or fewer, but one at least."""
        size = sum(rows[:1].nbytes for rows in inputs)
        count = max(1, min(count, self.at_once, _FED // size if size else count))
        try:
            outcome = worker.execute(self.slot, inputs, count, self.addresses)
        except WorkerFailure as error:
            return Outcome(0, [], error)
        if outcome.failure is None:
            self.at_once = outcome.done if outcome.done < count else self.at_once * 8
        return outcome


class Runner(Protocol):
    """What a pass needs of its session."""

    worker: Worker
    arguments: Sequence[InputSpec]
    batch: int | None

    def check_open(self) -> None: ...

    def load(self, program: Program) -> None: ...

    def failed(self, error: WorkerFailure) -> RuntimeFailure: ...


class TflitePass:
    """One prepared pass; implements the Pass protocol."""

    def __init__(self, session: Runner, taps: Sequence[TapPoint], program: Program) -> None:
        self._session, self._taps, self._program = session, tuple(taps), program

    def __call__(self, feed: Feed, emit: Emit, /) -> None:
        session = self._session
        session.check_open()
        fed, count = executions(feed, session.arguments, session.batch)
        done = 0
        while done < count:
            rest = {name: rows[done:] for name, rows in fed.items()}
            inputs = [rest[spec.name] for spec in session.arguments]
            outcome = self._execute(inputs, count - done)
            self._emit(outcome, rest, emit)
            done += outcome.done
            if outcome.failure is not None:
                failure = session.failed(outcome.failure)
                failure.execution = done
                raise failure from outcome.failure.__cause__

    def _execute(self, inputs: Sequence[Array], count: int) -> Outcome:
        # No other thread replaces the worker in between.
        with self._session.worker.lock:
            self._session.load(self._program)
            return self._program.execute(self._session.worker, inputs, count)

    def _emit(self, outcome: Outcome, inputs: Mapping[str, Array], emit: Emit) -> None:
        place = {tap.name: i for i, tap in enumerate(self._program.taps)}
        for tap in self._taps:
            if tap.name not in place:
                if outcome.done:
                    emit(tap, inputs[tap.name][: outcome.done].copy())
                continue
            for values in outcome.values:
                emit(tap, values[place[tap.name]])


def executions(
    feed: Feed, arguments: Sequence[InputSpec], batch: int | None
) -> tuple[dict[str, Array], int]:
    """What ``feed`` holds for each of ``arguments``, as arrays (executions, *shape), and how many
    executions those are; ``batch`` samples each, or one without a batch axis where it is None.
    Raises FeedError."""
    rows = {spec.name: _rows(feed, spec, batch) for spec in arguments}
    counts = {len(value) for value in rows.values()} or {1}
    if len(counts) > 1:
        raise FeedError(
            "the inputs hold different numbers of samples", hint="axis 0 counts samples"
        )
    return rows, counts.pop()


def _rows(feed: Feed, spec: InputSpec, batch: int | None) -> Array:
    if spec.name not in feed:
        return fed(feed, spec)[None]  # which says what is missing
    value = np.asarray(feed[spec.name])
    if batch is not None and value.ndim and len(value) % batch == 0:
        value = value.reshape(-1, batch, *value.shape[1:])
    elif value.ndim == len(spec.shape or ()):
        value = value[None]
    # Of several executions all are of one dtype and shape.
    fed({spec.name: value[0] if value.ndim and len(value) else value}, spec)
    return value


__all__ = ["Program", "Runner", "TflitePass", "executions"]
