"""The session's side of a worker: start it, talk to it, outlive it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layertap.core.dtypes import Array
from layertap.runtimes.worker.child import Child, Hear
from layertap.runtimes.worker.failure import WorkerFailure
from layertap.runtimes.worker.taken import Taken
from layertap.runtimes.worker.wire import Header

_START = 60.0
"""Seconds that a worker has to start, if not more are allowed for a request: it imports a
framework, from a cold disk perhaps, before it can tell how long a model takes."""

_LONGEST = 1e6
"""No more seconds can be waited for."""

LIMIT = 16 << 20
"""Bytes that a block has at most, unless one execution takes more."""


@dataclass(frozen=True)
class Outcome:
    """What a call of :meth:`Worker.execute` gave: how many executions are complete, their values in
    order, and why there are no more. ``values`` are lists of one array (executions, *shape) per
    output; more than one list where shapes differ."""

    done: int
    values: list[list[Array]]
    failure: WorkerFailure | None


class Worker:
    """A child process that runs the program ``engine``; started when first needed, and again after
    a crash. Several threads may use it.

    ``timeout``: seconds that loading, or one execution, may take; starting is not part of it.
    ``generation`` counts the starts, so that callers see that what they loaded is gone.
    """

    def __init__(self, engine: Path, *, timeout: float) -> None:
        self.lock = threading.RLock()
        self.generation = 0
        self._engine = engine
        self._timeout = min(timeout, _LONGEST)
        self._child: Child | None = None
        self._dropped: deque[int] = deque()

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.process.pid

    def start(self) -> None:
        """Start the process, unless there is one that can be talked to, without waiting until it
        has started. Raises WorkerFailure."""
        with self.lock, _memory():
            child = self._child
            if child is not None and (child.pending or child.is_gone()):
                self.stop()
            if self._child is None:
                self._child = Child(self._engine)
                self.generation += 1

    def load(self, slot: int, model: bytes, options: Mapping[str, Any]) -> None:
        """Load ``model`` under the number ``slot``. Raises WorkerFailure."""
        with self.lock, self._talking() as child:
            self._ask(child, {"do": "load", "slot": slot, "options": options}, model, _ignore)

    def drop(self, slot: int) -> None:
        """Have what is loaded as ``slot`` forgotten with the next request."""
        self._dropped.append(slot)

    def execute(
        self, slot: int, inputs: Sequence[Array], count: int, outputs: Sequence[int]
    ) -> Outcome:
        """Execute what is loaded once for each of the first ``count`` rows of ``inputs``, or as
        often as there is room for what is computed, unless it fails: once at least. ``outputs`` are
        what is read, as the engine knows it. Raises WorkerFailure where nothing was begun."""
        with self.lock, self._talking() as child, _memory():
            places, start = child.block.put([rows[:count] for rows in inputs])
            header = {"do": "run", "slot": slot, "inputs": places, "outputs": list(outputs)}
            header |= {"count": count, "start": start, "limit": LIMIT}
            taken = Taken(child.block)
            failure = None
            try:
                self._ask(child, header, b"", taken.hear)
            except WorkerFailure as error:
                failure = error
                taken.take(child.block.told[1])
                failure.execution = taken.count
            return Outcome(taken.count, taken.values, failure)

    def stop(self) -> None:
        """End the process, if there is one. Idempotent."""
        with self.lock:
            child, self._child = self._child, None
            if child is not None:
                child.stop()

    @contextlib.contextmanager
    def _talking(self) -> Iterator[Child]:
        """The child, started; it does not stay behind when the conversation breaks off."""
        self.start()
        child = self._child
        assert child is not None
        try:
            if not child.greeted:
                child.greet(max(self._timeout, _START))
            yield child
        finally:
            if child.pending:
                self.stop()

    def _ask(self, child: Child, header: Header, payload: bytes, hear: Hear) -> None:
        dropped = [self._dropped.popleft() for _ in range(len(self._dropped))]
        child.ask({**header, "drop": dropped}, payload, self._timeout, hear)


def _ignore(message: Header) -> None:
    """Loading says nothing on the way."""


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    """Raises WorkerFailure where the system has not what a worker takes."""
    try:
        yield
    except OSError as error:
        raise WorkerFailure(
            f"the system has no room for the worker: {error.strerror or error}",
            native="",
            crashed=False,
            hint="close other models, or select fewer taps",
        ) from error


__all__ = ["Outcome", "Worker", "WorkerFailure"]
