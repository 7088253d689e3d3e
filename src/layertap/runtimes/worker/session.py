"""A .tflite model run in a worker: everything but the interpreter itself."""

from __future__ import annotations

import hashlib
import importlib.metadata
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.feeds import Feed, InputSpec, fed
from layertap.core.files import read_whole, write_whole
from layertap.core.graph import Graph, TapPoint
from layertap.core.plan import check_readable
from layertap.core.protocols import Capabilities, Emit, Json, Wanted
from layertap.errors import RunError, RuntimeFailure, SourceError, Untappable
from layertap.runtimes.registry import Runtime, missing_runtime
from layertap.runtimes.worker.process import Worker, WorkerFailure
from layertap.tflite.cut import cut
from layertap.tflite.edit import with_outputs
from layertap.tflite.graph import MAIN, tap_graph
from layertap.tflite.model import TfliteModel, parse
from layertap.tflite.values import weight

DEFAULT_TIMEOUT = 600.0
"""Seconds one execution (or loading the model) may take before the worker is ended."""


class TfliteSession(ABC):
    """What the .tflite runtimes have in common; implements the Session protocol.

    Nothing of the framework is needed, and no process started, before a pass is prepared. After a
    crash the next pass starts a new worker. Raises SourceError or CorruptModel.
    """

    row: Runtime
    engine: str
    """Module that the worker runs."""
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
        self.path = None if isinstance(source, bytes) else str(source)
        self.data = read_whole(source)
        self.model = parse(self.data)
        self._digest = hashlib.sha256(self.data).hexdigest()
        self.signature = signature
        self.main = MAIN if signature is None else _subgraph_of(self.model, signature)
        listed = tap_graph(self.model, run=self.main, dynamic=self.dynamic, readable=self.readable)
        self.graph: Graph = listed.graph
        self.inputs: Sequence[InputSpec] = listed.inputs
        self.batch = listed.batch
        self.keep_state = bool(keep_state)
        seconds = DEFAULT_TIMEOUT if timeout is None else float(timeout)
        if not seconds > 0:
            raise SourceError(
                f"a timeout of {timeout} s is not possible", hint="give seconds above 0"
            )
        self.worker = Worker(self.engine, timeout=seconds)
        self.dropped: list[int] = []
        self._slots = 0
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(batch=self.batch, batched=self.batch is not None)

    @property
    def provenance(self) -> Mapping[str, Json]:
        try:
            version = importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            version = None
        return {
            "runtime": self.row.name,
            "version": version,
            "model": {"path": self.path, "sha256": self._digest},
            "keep_state": self.keep_state,
            "taps_by": "further graph outputs",
            **self.options(),
        }

    @abstractmethod
    def options(self) -> dict[str, Json]:
        """The runtime's own options, as they go into the provenance."""

    @abstractmethod
    def load(self, model: bytes, slot: int) -> None:
        """Load ``model`` in the worker under the number ``slot``. Raises RuntimeFailure."""

    def address(self, tap: TapPoint, outputs: Sequence[int]) -> int:
        """How the engine knows ``tap`` in a model whose outputs are the tensors ``outputs``."""
        return outputs.index(tap.index)

    def needs_output(self, tap: TapPoint) -> bool:
        """Whether ``tap`` can only be read as an output of the model."""
        return True

    def failed(self, error: WorkerFailure) -> RunError:
        """The error for the user when the worker failed while running."""
        return error

    @property
    def axes(self) -> Mapping[str, str]:
        return {}

    def trace(self, feed: Feed, wanted: Wanted | None = None, /) -> Graph:
        return self.graph

    def read(self, tap: TapPoint, /) -> Array:
        self.check_open()
        return weight(self.model, tap)

    def prepare(self, taps: Sequence[TapPoint], /) -> TflitePass:
        self.check_open()
        self.check_installed()
        check_readable(taps)
        for spec in self.inputs:
            if numpy_dtype(spec.dtype or "") is None:
                raise Untappable(
                    f"the model cannot be run: its input {spec.name!r} holds {spec.dtype}",
                    hint="only inputs of numbers can be fed",
                )
        self._slots += 1
        prepared = TflitePass(self, taps, self._slots)
        weakref.finalize(prepared, self.dropped.append, self._slots)
        return prepared

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

    def request(self, header: Mapping[str, Any], arrays: Sequence[Array]) -> list[Array]:
        """One request to the worker, which forgets models that are no longer used."""
        drop, self.dropped[:] = list(self.dropped), []
        return self.worker.request({**header, "drop": drop}, arrays)[1]

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


class TflitePass:
    """One prepared execution; loads its rewritten model again when the worker was replaced."""

    def __init__(self, session: TfliteSession, taps: Sequence[TapPoint], slot: int) -> None:
        self._session, self._taps, self._slot = session, tuple(taps), slot
        main = session.model.subgraphs[session.main]
        names = {tap.index: tap.name for tap in session.graph if tap.subgraph == session.main}
        self._inputs = [(names[i], main.tensors[i].shape) for i in main.inputs]
        self._computed = [tap for tap in taps if tap.kind != "input"]
        added = [tap.index for tap in self._computed if session.needs_output(tap)]
        self._model = with_outputs(session.data, added, subgraph=session.main)
        outputs = [*main.outputs, *(i for i in added if i not in main.outputs)]
        self._addresses = [session.address(tap, outputs) for tap in self._computed]
        self._generation = -1
        self._load()

    def __call__(self, feed: Feed, emit: Emit, /) -> None:
        session = self._session
        session.check_open()
        arrays = [self._fed(feed, i) for i in range(len(self._inputs))]
        self._load()
        try:
            header = {"do": "run", "slot": self._slot, "outputs": self._addresses}
            values = session.request(header, arrays)
        except WorkerFailure as error:
            raise session.failed(error) from error.__cause__
        by_name = {tap.name: value for tap, value in zip(self._computed, values, strict=True)}
        fed = {name: array for (name, _), array in zip(self._inputs, arrays, strict=True)}
        for tap in self._taps:
            value = by_name[tap.name] if tap.name in by_name else fed[tap.name].copy()
            emit(tap, value[None])

    def _load(self) -> None:
        """Make sure that the worker that runs now has the model."""
        session = self._session
        session.worker.start()
        if self._generation == session.worker.generation:
            return
        if session.keep_state and self._generation >= 0:
            raise RuntimeFailure(
                "the worker was lost, and with it what the model's variables held",
                hint="capture from the first sample again",
            )
        session.load(self._model, self._slot)
        self._generation = session.worker.generation

    def _fed(self, feed: Feed, position: int) -> Array:
        """The value for one input in the model's dtype, C-contiguous. Raises FeedError."""
        name = self._inputs[position][0]
        spec = next(spec for spec in self._session.inputs if spec.name == name)
        return fed(feed, spec)


def _subgraph_of(model: TfliteModel, key: str) -> int:
    for signature in model.signatures:
        if signature.key == key:
            return signature.subgraph
    keys = ", ".join(repr(signature.key) for signature in model.signatures)
    raise SourceError(
        f"the model has no signature {key!r}", hint=f"it has {keys}" if keys else "it has none"
    )


__all__ = ["DEFAULT_TIMEOUT", "TflitePass", "TfliteSession"]
