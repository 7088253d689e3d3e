"""The session of a model that runs on a board."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, InputSpec
from layertap.core.files import read_whole
from layertap.core.graph import Graph, TapPoint
from layertap.core.plan import check_readable
from layertap.core.protocols import Capabilities, Json, Wanted
from layertap.errors import PlanError, RunError, SourceError, Untappable
from layertap.firmware.wire.elements import NUMBERS
from layertap.firmware.wire.messages import WHOLE, WIRE
from layertap.runtimes.device.board import Board, Identity
from layertap.runtimes.device.forms import Reading, Texts, readings
from layertap.runtimes.device.inference import DevicePass
from layertap.runtimes.device.link import Link
from layertap.runtimes.device.transport import open_transport
from layertap.runtimes.worker.axes import ONE_SAMPLE, Judgement, Prover, with_axes
from layertap.tflite.graph import MAIN, tap_graph
from layertap.tflite.model import TfliteModel, parse
from layertap.tflite.shapes import check_open_shapes
from layertap.tflite.values import weight

DEFAULT_BAUD = 115_200
DEFAULT_TIMEOUT = 10.0
DEFAULT_RETRIES = 3


class DeviceModel:
    """A .tflite file as a board runs it: its taps, how each is read, and who the board must be.

    Needs no board. Raises SourceError, CorruptModel, PlanError and SelectionError.
    """

    def __init__(
        self, source: str | Path | bytes, slices: Texts = None, reduce: Texts = None
    ) -> None:
        self.path = None if isinstance(source, bytes) else str(source)
        self.data = read_whole(source)
        self.model: TfliteModel = parse(self.data)
        check_open_shapes(self.model)
        self.identity = Identity.of(self.data, self.path)
        listed = tap_graph(self.model, readable=frozenset(NUMBERS), inside=True)
        self.inputs: Sequence[InputSpec] = listed.inputs
        self.batch = listed.batch
        self.bits = {
            (subgraph.index, tensor.index): bit
            for bit, (subgraph, tensor) in enumerate(
                (subgraph, tensor)
                for subgraph in self.model.subgraphs
                for tensor in subgraph.tensors
            )
        }
        self.readings: dict[str, Reading] = readings(listed.graph, self.bits, slices, reduce)
        self.forms = {
            name: reading.form.described()
            for name, reading in self.readings.items()
            if reading.tap is not reading.whole
        }
        taps = (self.readings[t.name].tap if t.name in self.readings else t for t in listed.graph)
        self.graph = Graph(taps)

    @property
    def provenance(self) -> dict[str, Json]:
        """Runtime, version and model, as every run has them."""
        digest = hashlib.sha256(self.data).hexdigest()
        return {
            "runtime": "device",
            "version": f"wire {WIRE}",
            "model": {"path": self.path, "sha256": digest},
            "taps_by": "the firmware, after each operator",
            **({"forms": self.forms} if self.forms else {}),
        }


class DeviceSession:
    """A model on a board that takes inputs; implements the Session and the Grouping protocol.

    Without ``port`` it lists taps and reads weights. Raises SourceError, CorruptModel, PlanError,
    SelectionError, RuntimeFailure or WireError.
    """

    def __init__(
        self,
        source: str | Path | bytes,
        *,
        port: str | Path | None,
        baud: int,
        timeout: float,
        retries: int,
        slices: Texts,
        reduce: Texts,
        keep_state: bool,
    ) -> None:
        check_numbers(baud=baud, timeout=timeout, retries=retries)
        self.device = DeviceModel(source, slices, reduce)
        self.graph = self.device.graph
        self.inputs = self.device.inputs
        self.retries, self.keep_state = retries, bool(keep_state)
        self._port, self._baud, self._timeout = port, baud, float(timeout)
        self._board: Board | None = None
        self._before: dict[str, int] = {}
        self._closed = False
        self._axes: Mapping[str, Judgement] = {}
        batch = self.device.batch or 1
        self._prover = Prover(self.inputs, batch) if batch > 1 else None
        if port is not None:
            self.board()

    @property
    def capabilities(self) -> Capabilities:
        batch = self.device.batch
        return Capabilities(batch=batch, batched=batch is not None)

    @property
    def provenance(self) -> Mapping[str, Json]:
        return {
            **self.device.provenance,
            "keep_state": self.keep_state,
            **({} if self._board is None else {"board": self._board.facts()}),
        }

    @property
    def observed(self) -> Mapping[str, int]:
        """What the link went through since the last :meth:`prepare`: bytes, frames, losses, and
        inferences that were run again."""
        now = {} if self._board is None else self._board.counters()
        return {name: now[name] - self._before.get(name, 0) for name in now}

    @property
    def axes(self) -> Mapping[str, str]:
        return {name: how for name, (_, how) in self._axes.items()}

    def trace(self, feed: Feed, wanted: Wanted | None = None, /) -> Graph:
        """Judges the tensors that are sent whole; a part of one has no axis of samples unless the
        batch has one."""
        taps = [t for t in self.graph if t.per != "run" and (wanted is None or wanted(t))]
        if self._prover is None:
            self._axes = {tap.name: (0, ONE_SAMPLE) for tap in taps}
        elif self._port is not None:
            whole = [tap for tap in taps if self._is_judged(tap)]
            self._axes = self._prover.prove(whole, feed, self._values)
            self.graph = with_axes(self.graph, self._axes)
        return self.graph

    def _is_judged(self, tap: TapPoint) -> bool:
        is_sent = tap.subgraph == MAIN and not tap.untappable and tap.kind != "weight"
        return is_sent and self.device.readings[tap.name].form.kind == WHOLE

    def _values(self, taps: Sequence[TapPoint], feed: Feed) -> dict[str, list[Array]]:
        """Those of several executions, each from a fresh state."""
        found: dict[str, list[Array]] = {tap.name: [] for tap in taps}
        size = self.device.batch or 1
        for start in range(0, len(next(iter(feed.values()))), size):
            one = {name: value[start : start + size] for name, value in feed.items()}
            self.prepare(taps)(one, lambda tap, values: found[tap.name].append(values))
        return found

    def read(self, tap: TapPoint, /) -> Array:
        self.check_open()
        return weight(self.device.model, tap)

    def prepare(self, taps: Sequence[TapPoint], /) -> DevicePass:
        self.check_open()
        check_readable(taps)
        for spec in self.inputs:
            if spec.dtype not in NUMBERS or spec.dtype == "int4":
                raise Untappable(
                    f"the model cannot be run: its input {spec.name!r} holds {spec.dtype}",
                    hint="only inputs of whole bytes can be sent to a board",
                )
        board = self.board()
        board.require_inputs()
        readings = [replace(self.device.readings[tap.name], tap=tap) for tap in taps]
        prepared = DevicePass(self, readings)
        prepared.configure(board)
        self._before = board.counters()
        return prepared

    def group(self, taps: Sequence[TapPoint], /) -> list[list[TapPoint]]:
        """Passes, each of which takes no more rules than the firmware has room for. Raises
        PlanError for several where the state is kept, which would change in each."""
        in_part = {tap.name for tap in taps if self._is_rule(tap)}
        room = None if self._port is None else self.board().room
        if not room or len(in_part) <= room:
            return [list(taps)]
        if self.keep_state:
            raise PlanError(
                f"{len(in_part)} taps are to be sent in part, the firmware has room for {room} at "
                "once, and a state that is kept allows no second pass",
                hint=f"make it anew with layertap firmware --rules {len(in_part)}, select fewer, "
                "or leave out keep_state=True",
            )
        groups: list[list[TapPoint]] = []
        for rules, tap in zip(accumulate(t.name in in_part for t in taps), taps, strict=True):
            number = max(0, rules - 1) // room
            groups += [[] for _ in range(number + 1 - len(groups))]
            groups[number].append(tap)
        return groups

    def _is_rule(self, tap: TapPoint) -> bool:
        return tap.kind != "input" and self.device.readings[tap.name].rule() is not None

    def board(self) -> Board:
        """The board, connected anew where it was lost. Raises PlanError without a port."""
        if self._board is None or self._board.link.broken:
            if self._port is None:
                raise PlanError(
                    "no port was given: there is no board to run the model",
                    hint="port='/dev/ttyACM0', 'tcp://HOST:PORT' or 'exec:COMMAND'",
                )
            self._disconnect()
            transport = open_transport(self._port, baud=self._baud, patience=self._timeout)
            link = Link(transport, timeout=self._timeout)
            try:
                self._board = Board(link, link.greeting(), self.device.identity)
            except BaseException:
                transport.close()
                raise
        return self._board

    def close(self) -> None:
        self._closed = True
        self._disconnect()

    def check_open(self) -> None:
        """Raises RunError after :meth:`close`."""
        if self._closed:
            raise RunError("the model is closed", hint="open it again")

    def _disconnect(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None


def check_numbers(*, baud: int, timeout: float, retries: int = 0, every: int = 1) -> None:
    """Raise SourceError for options that mean nothing."""
    limits = {"baud": (baud, 1), "retries": (retries, 0), "every": (every, 1)}
    for name, (value, least) in limits.items():
        if not isinstance(value, int) or not least <= value < 1 << 32:
            raise SourceError(f"{name}={value!r} is not possible", hint=f"give {least} or more")
    if not isinstance(timeout, int | float) or not 0 < timeout < 1 << 32:
        raise SourceError(
            f"a timeout of {timeout!r} s is not possible", hint="give seconds above 0"
        )


__all__ = ["DEFAULT_BAUD", "DEFAULT_RETRIES", "DEFAULT_TIMEOUT", "DeviceModel", "DeviceSession"]
