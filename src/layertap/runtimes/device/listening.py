"""What a board sends on its own: whole inferences, one after the other."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from layertap.core.dtypes import Array
from layertap.core.graph import Graph, TapPoint
from layertap.core.plan import check_readable
from layertap.core.protocols import Json
from layertap.core.select import Selector, select
from layertap.errors import LayertapError, PlanError, RuntimeFailure, Untappable, WireError
from layertap.firmware.wire.assembly import Assembly, Inference, Value
from layertap.firmware.wire.decoder import Damage
from layertap.firmware.wire.messages import (
    HISTOGRAM,
    STARTED,
    TAKES_INPUTS,
    TAKES_SELECT,
    WHOLE,
    Ask,
    Hello,
    mask_bits,
)
from layertap.runtimes.device.board import Board
from layertap.runtimes.device.forms import Form, Reading, formed
from layertap.runtimes.device.link import Link, Restarted
from layertap.runtimes.device.session import DEFAULT_TIMEOUT, DeviceModel
from layertap.runtimes.device.transport import Ended, Transport

_log = logging.getLogger("layertap.device.link")

_FIRST_LOOK = 3.0
"""Seconds of bytes without a frame after which they are judged."""
_STARTS = 3
"""So many starts with no whole inference in between are a board that cannot go on."""


@dataclass(frozen=True)
class Heard:
    """One whole inference: its number on the board, and the value of each tap in it."""

    number: int
    values: dict[str, Array]


class Listener:
    """Follows a board, and gives each inference that comes whole.

    ``taps`` are known once the first one has come. With ``every`` or a selection the board is told
    what to send, where it can be told; a selection of what it does not send is an error otherwise.
    ``patience``: seconds without a message after which the board is given up; None for never.
    """

    def __init__(
        self,
        device: DeviceModel,
        transport: Transport,
        taps: Selector = None,
        *,
        every: int | None = None,
        patience: float | None = None,
    ) -> None:
        self.device = device
        self.transport = transport
        self.taps: tuple[TapPoint, ...] = ()
        self.dropped = 0
        """Inferences of which a part was missing."""
        self.early = 0
        """Inferences that came before the board had said which model it runs, or were under way
        when it was told what to send."""
        self.failed = 0
        """Inferences that failed on the board."""
        self._chosen = None if taps is None else check_sent(device.graph, taps)
        self._every = every
        self._patience = math.inf if patience is None else patience
        self._readings: list[Reading] = []
        self._board: Board | None = None
        self._assembly = Assembly()
        self._starts = 0
        self._is_joining = False
        self._is_waited_for = False
        self._link = Link(transport, timeout=patience or DEFAULT_TIMEOUT)

    def __iter__(self) -> Iterator[Heard]:
        """Whole inferences, until the board's stream ends. Raises SourceError for a board that runs
        another model, Untappable, PlanError, RuntimeFailure and WireError."""
        if self.transport.two_way:
            self._link.send(Ask())
        started = heard = time.monotonic()
        while (now := time.monotonic()) < heard + self._patience:
            try:
                event = self._link.receive(min(heard + self._patience, now + 1.0))
            except Ended as end:
                self._give_up_at_end(end)
                return
            if event is None or isinstance(event, Damage):
                self._judge(started)
            if event is None:
                continue
            if isinstance(event, Hello):
                self._greeted(event)
            inference = self._assembly.take(event)
            if inference is not None and (found := self._taken(inference)) is not None:
                yield found
            if not isinstance(event, Damage):
                heard = time.monotonic()
        raise self._link.silence()

    def counters(self) -> dict[str, int]:
        """What came and what was lost so far."""
        counts = self._link.counters()
        return {**counts, "dropped": self.dropped, "early": self.early, "failed": self.failed}

    def facts(self) -> dict[str, Json]:
        """What a run should remember of the board."""
        return {} if self._board is None else {"board": self._board.facts()}

    def close(self) -> None:
        self.transport.close()

    def _greeted(self, hello: Hello) -> None:
        if self._board is None:
            self._board = Board(self._link, hello, self.device.identity)
            self._readings = self._to_read(hello)
        else:
            self.device.identity.check_board(hello)
            if hello.reason != STARTED:
                return
        if hello.reason == STARTED:
            self._starts += 1
            found = self._link.decoder.diagnosis() if self._starts >= _STARTS else None
            if found is not None:
                raise found
        self._configure(self._board)

    def _to_read(self, hello: Hello) -> list[Reading]:
        sent = set(mask_bits(hello.mask))
        readings = self.device.readings.values()
        if self._chosen is None:
            return [one for one in readings if one.bit in sent and not one.tap.untappable]
        wanted = {tap.name for tap in self._chosen}
        chosen = [reading for reading in readings if reading.tap.name in wanted]
        missing = [reading for reading in chosen if reading.bit not in sent]
        if missing and not self._can_tell(hello):
            raise Untappable(
                f"{missing[0].tap.name!r} cannot be read: the board does not send it, and cannot "
                "be told to",
                hint="leave it out, or make the firmware anew with it: layertap firmware --taps",
            )
        return chosen

    def _can_tell(self, hello: Hello) -> bool:
        return self.transport.two_way and bool(hello.able & TAKES_SELECT)

    def _configure(self, board: Board) -> None:
        """Tell the board what to send, where that was asked for and it can be told."""
        told = self._every is not None or self._chosen is not None or bool(self.device.forms)
        if not told:
            return
        if not self._can_tell(board.hello):
            if self._every is not None:
                raise PlanError(
                    f"the board sends every {board.hello.every}, and cannot be told otherwise",
                    hint="leave every out (--every)",
                )
            return
        try:
            board.configure(self._readings, self._every or board.hello.every)
        except Restarted:
            _log.info("the board started again while it was told what to send")
        self._assembly.drop("")
        self._is_joining = True

    def _taken(self, inference: Inference) -> Heard | None:
        """What is to be kept of an inference; None for one that does not count."""
        if self._board is None or (self._is_joining and not inference.whole):
            self._is_joining = False
            self.early += 1
            return None
        self._is_joining = False
        if not inference.whole:
            self.dropped += 1
            _log.info("inference %d is dropped: %s", inference.number, inference.why)
            return None
        if inference.status:
            self.failed += 1
            _log.info("inference %d failed on the board", inference.number)
            return None
        self._starts = 0
        if not inference.tensors:
            return None  # one of those in between, with every
        if not self.taps:
            self._readings = [_adapted(one, inference) for one in self._readings]
            self.taps = tuple(reading.tap for reading in self._readings)
        values = {}
        for reading in self._readings:
            value = reading.value(inference.tensors.get(reading.place, ()))
            if value is not None:
                values[reading.tap.name] = value
        return Heard(inference.number, values) if values else None

    def _judge(self, started: float) -> None:
        """Raise WireError for noise, which cannot become a stream of layertap's; tell of a board
        that may wait for its host."""
        counters = self._link.decoder.counters
        if time.monotonic() < started + _FIRST_LOOK:
            return
        if counters.frames:
            waits = self._board is not None and self._board.hello.able & TAKES_INPUTS
            if waits and not self.taps and not self._is_waited_for:
                self._is_waited_for = True
                _log.info("the board takes inputs and may wait for them: layertap capture")
            return
        found = self._link.decoder.diagnosis()
        if found is not None and 2 * counters.text < counters.bytes:
            raise found

    def _give_up_at_end(self, end: Ended) -> None:
        """Raise what is wrong with a stream that ended, unless it held what it should."""
        if not end.expected:
            raise end
        if self.taps:
            return
        found: LayertapError | None = self._link.decoder.diagnosis()
        if self._board is None and self.early:
            found = WireError(
                f"{self.early} inferences came, and no word about the model that they are of",
                hint="a board says so at its start and every 16 inferences: listen for longer",
            )
        elif found is None:
            found = RuntimeFailure(
                f"{self.transport.name} has ended before a whole inference came",
                hint="is it what a board with layertap sends? is there enough of it?",
            )
        raise found from end


def check_sent(graph: Graph, taps: Selector) -> Sequence[TapPoint]:
    """The taps of a selection. Raises SelectionError, Untappable and PlanError for what no board
    sends."""
    chosen = select(graph, taps)
    check_readable(chosen)
    for tap in chosen:
        if tap.kind == "weight":
            raise PlanError(
                f"{tap.name!r} is a weight, which a board does not send",
                hint="layertap.open(...).read(name) reads it from the file",
            )
    return chosen


def _adapted(reading: Reading, inference: Inference) -> Reading:
    """In the form in which the firmware sends it by itself, where no other was asked for."""
    values = inference.tensors.get(reading.place)
    if not values or reading.form.kind != WHOLE or values[0].form == WHOLE:
        return reading
    form = _form(values[0], reading)
    return replace(reading, form=form, tap=formed(reading.whole, form))


def _form(value: Value, reading: Reading) -> Form:
    low, high = value.low, value.high
    quantization = reading.whole.quantization
    if quantization is not None and value.form == HISTOGRAM:
        scale, zero = quantization.scales[0], quantization.zero_points[0]
        low, high = (scale * (limit - zero) for limit in (low, high))
    return Form(value.form, value.first, value.array.size, low, high)


__all__ = ["Heard", "Listener", "check_sent"]
