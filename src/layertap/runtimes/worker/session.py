"""A .tflite model run in a worker: everything but the interpreter itself."""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.feeds import Feed, InputSpec
from layertap.core.files import read_whole, write_whole
from layertap.core.graph import Graph, TapPoint
from layertap.core.plan import check_readable
from layertap.core.protocols import Capabilities, Json, Wanted
from layertap.errors import RunError, RuntimeFailure, SourceError, Untappable
from layertap.runtimes.registry import Runtime, missing_runtime
from layertap.runtimes.worker.axes import ONE_SAMPLE, Judgement, Prover, with_axes
from layertap.runtimes.worker.passes import Program, TflitePass
from layertap.runtimes.worker.process import Worker, WorkerFailure
from layertap.runtimes.worker.signatures import SignatureNames, asked_for, signature_of
from layertap.tflite.cut import cut
from layertap.tflite.edit import with_outputs
from layertap.tflite.graph import tap_graph
from layertap.tflite.model import parse
from layertap.tflite.values import weight

DEFAULT_TIMEOUT = 600.0
"""Seconds one execution (or loading the model) may take before the worker is ended."""

_BLOCK = 4096
_UNKNOWN_BLOCK = 16
"""Executions that one call of a pass takes at most, where all sizes are known, so that the caller
takes fewer of large ones, and where not."""


class TfliteSession(ABC):
    """What the .tflite runtimes have in common; implements the Session protocol.

    Nothing of the framework is needed, and no process started, before a pass is prepared. After a
    crash the next pass starts a new worker. Raises SourceError or CorruptModel.
    """

    row: Runtime
    engine: Path
    """The program that the worker runs."""
    distribution: str
    readable: frozenset[str]
    """Element types that the interpreter hands out."""
    dynamic = False

    def __init__(
        self,
        source: str | Path | bytes,
        *,
        signature: str | None = None,
        keep_state: bool = False,
        timeout: float | None = None,
    ) -> None:
        self.path = None
        if not isinstance(source, bytes):
            source, signature = asked_for(source, signature)
            self.path = str(source)
        self.data = read_whole(source)
        self.model = parse(self.data)
        self._digest = hashlib.sha256(self.data).hexdigest()
        self.signature = signature
        self._list(SignatureNames(self.model, signature_of(self.model, signature)))
        self.keep_state = bool(keep_state)
        self.worker = Worker(self.engine, timeout=_seconds(timeout))
        self._slots = itertools.count(1)
        self._latest: Program | None = None
        self._axes: Mapping[str, Judgement] = {}
        batch = self.batch or 1
        self._prover = Prover(self.inputs, batch) if batch > 1 else None
        self._closed = False

    def _list(self, names: SignatureNames) -> None:
        self.main = names.subgraph
        listed = tap_graph(self.model, run=self.main, dynamic=self.dynamic, readable=self.readable)
        self.graph = names.given_to(listed.graph)
        self.inputs: Sequence[InputSpec] = names.ordered(listed.inputs, self.graph)
        by_index = {self.graph[spec.name].index: spec for spec in listed.inputs}
        main = self.model.subgraphs[self.main]
        self.arguments: Sequence[InputSpec] = [by_index[i] for i in main.inputs]
        """What the interpreter is given, in the order of the subgraph's inputs."""
        self.batch = listed.batch
        known = all(tap.untappable or tap.row_bytes is not None for tap in self.graph)
        self.block = _BLOCK if known else _UNKNOWN_BLOCK

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(batch=self.batch, batched=self.batch is not None, block=self.block)

    @property
    def provenance(self) -> Mapping[str, Json]:
        return {
            "runtime": self.row.name,
            "version": _version(self.distribution),
            "model": {"path": self.path, "sha256": self._digest},
            "keep_state": self.keep_state,
            "taps_by": "further graph outputs",
            **self.options(),
        }

    @abstractmethod
    def options(self) -> dict[str, Json]:
        """The runtime's own options, as they go into the provenance."""

    @abstractmethod
    def load_model(self, model: bytes, slot: int, *, keep_state: bool) -> None:
        """Load ``model`` in the worker under the number ``slot``. Raises RuntimeFailure."""

    def address(self, tap: TapPoint, outputs: Sequence[int]) -> int:
        """How the engine knows ``tap`` in a model whose outputs are the tensors ``outputs``."""
        return outputs.index(tap.index)

    def needs_output(self, tap: TapPoint) -> bool:
        """Whether ``tap`` can only be read as an output of the model."""
        return True

    def failed(self, error: WorkerFailure) -> RuntimeFailure:
        """The error for the user when the worker failed while running."""
        return error

    @property
    def axes(self) -> Mapping[str, str]:
        return {name: how for name, (_, how) in self._axes.items()}

    def trace(self, feed: Feed, wanted: Wanted | None = None, /) -> Graph:
        taps = [t for t in self.graph if t.per != "run" and (wanted is None or wanted(t))]
        if self._prover is None:
            self._axes = {tap.name: (0, ONE_SAMPLE) for tap in taps}
        else:
            readable = [tap for tap in taps if not tap.untappable]
            self._axes = self._prover.prove(readable, feed, self._values)
            self.graph = with_axes(self.graph, self._axes)
        return self.graph

    def _values(self, taps: Sequence[TapPoint], feed: Feed) -> dict[str, list[Array]]:
        found: dict[str, list[Array]] = {tap.name: [] for tap in taps}
        for group in self.group(taps):
            run = self._prepared(group, keep_state=False)
            run(feed, lambda tap, values: found[tap.name].append(values))
        return found

    def group(self, taps: Sequence[TapPoint], /) -> list[list[TapPoint]]:
        """``taps`` in groups that one pass each can read. Raises ArenaExceeded and PlanError."""
        return [list(taps)]

    def read(self, tap: TapPoint, /) -> Array:
        self.check_open()
        return weight(self.model, tap)

    def prepare(self, taps: Sequence[TapPoint], /) -> TflitePass:
        return self._prepared(taps, keep_state=self.keep_state)

    def _prepared(self, taps: Sequence[TapPoint], *, keep_state: bool) -> TflitePass:
        self.check_open()
        self.check_installed()
        check_readable(taps)
        for spec in self.inputs:
            if numpy_dtype(spec.dtype or "") is None:
                raise Untappable(
                    f"the model cannot be run: its input {spec.name!r} holds {spec.dtype}",
                    hint="only inputs of numbers can be fed",
                )
        self.worker.start()
        program = self.program([tap for tap in taps if tap.kind != "input"], keep_state)
        self.load(program)
        return TflitePass(self, taps, program)

    def program(self, taps: Sequence[TapPoint], keep_state: bool) -> Program:
        """What reads ``taps``; the last one is used again, unless its variables keep values."""
        names = [tap.name for tap in taps]
        if not keep_state and self._latest and names == [tap.name for tap in self._latest.taps]:
            return self._latest
        outputs = self.model.subgraphs[self.main].outputs
        added = [tap.index for tap in taps if self.needs_output(tap) and tap.index not in outputs]
        addresses = [self.address(tap, [*outputs, *added]) for tap in taps]
        slot, drop = next(self._slots), self.worker.drop
        program = Program(taps, added, addresses, slot, drop, keep_state=keep_state)
        if not keep_state:
            self._latest = program
        return program

    def load(self, program: Program) -> None:
        """Make sure that the worker that runs now has ``program``. Raises RuntimeFailure."""
        with self.worker.lock:
            self.worker.start()
            if program.generation == self.worker.generation:
                return
            if program.keep_state and program.generation >= 0:
                raise RuntimeFailure(
                    "the worker was lost, and with it what the model's variables held",
                    hint="capture from the first sample again",
                )
            model = with_outputs(self.data, program.added, subgraph=self.main)
            self.load_model(model, program.slot, keep_state=program.keep_state)
            program.generation = self.worker.generation

    def export(self, taps: Sequence[TapPoint], to: Path | None, /, *, whole: bool) -> bytes | Path:
        """The .tflite with ``taps`` as outputs: as bytes, or written to ``to``."""
        self.check_open()
        change = with_outputs if whole else cut
        for tap in taps:
            if tap.untappable:
                raise Untappable(
                    f"{tap.name!r} cannot be an output: {tap.untappable}",
                    hint="choose a tap before or after it",
                )
        data = change(self.data, [tap.index for tap in taps], subgraph=self.main)
        if to is None:
            return data
        write_whole(to, data)
        return to

    def close(self) -> None:
        self._closed = True
        self.worker.stop()

    def check_installed(self) -> None:
        """Raises MissingRuntime without the framework."""
        missing = self.row.missing()
        if missing:
            raise missing_runtime(self.row, missing)

    def check_open(self) -> None:
        """Raises RunError after :meth:`close`."""
        if self._closed:
            raise RunError("the model is closed", hint="open it again")


def _seconds(timeout: float | None) -> float:
    try:
        seconds = DEFAULT_TIMEOUT if timeout is None else float(timeout)
    except (TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0:
        raise SourceError(
            f"a timeout of {timeout!r} s is not possible", hint="give seconds above 0"
        )
    return seconds


@cache
def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # takes longer than all the rest

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


__all__ = ["DEFAULT_TIMEOUT", "TfliteSession"]
