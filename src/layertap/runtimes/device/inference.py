"""One inference on a board, run again until all of it has come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, fed
from layertap.core.protocols import Emit
from layertap.errors import LayertapError, RuntimeFailure
from layertap.firmware.wire.assembly import Assembly, Inference
from layertap.firmware.wire.messages import (
    ASKED,
    INPUTS_DAMAGED,
    OK,
    RESETS_STATE,
    STARTED,
    Answer,
    Ask,
    Hello,
    Input,
    Run,
    Tensor,
)
from layertap.runtimes.device.board import Board, refused
from layertap.runtimes.device.forms import Reading
from layertap.runtimes.device.link import Restarted
from layertap.tflite.graph import MAIN

if TYPE_CHECKING:
    from layertap.runtimes.device.session import DeviceSession

_ASK_AFTER = 5.0
"""Seconds of silence after which a board is asked whether it is still there. Not sooner: one that
computes, and reads its UART only afterwards, has room for a few bytes."""


class _Again(Exception):
    """The inference did not come whole; ``ran`` tells whether the board may have run it."""

    def __init__(self, why: str, *, ran: bool = True) -> None:
        super().__init__(why)
        self.why, self.ran = why, ran


class DevicePass:
    """One selection of taps; configures the board again when it has restarted."""

    def __init__(self, session: DeviceSession, readings: Sequence[Reading]) -> None:
        self._session, self._readings = session, tuple(readings)
        self._sent = [reading for reading in readings if reading.whole.kind != "input"]
        self._samples = 0
        self._assembly = Assembly()

    def __call__(self, feed: Feed, emit: Emit, /) -> None:
        session = self._session
        session.check_open()
        arrays = {spec.name: fed(feed, spec) for spec in session.inputs}
        names = [spec.name for spec in session.inputs]
        main = session.device.model.subgraphs[MAIN]
        position = {index: names[n] for n, index in enumerate(dict.fromkeys(main.inputs))}
        inputs = [arrays[position[i]].tobytes() for i in main.inputs]
        inference = self._whole(inputs)
        self._samples += 1
        for reading in self._readings:
            emit(reading.tap, self._value(reading, inference, arrays)[None])

    def configure(self, board: Board) -> None:
        """Tell the board what to send."""
        for _ in range(self._session.retries + 1):
            try:
                board.configure(self._sent)
            except Restarted:
                continue
            board.configured = self
            return
        raise board.link.silence()

    def _value(self, reading: Reading, inference: Inference, arrays: dict[str, Array]) -> Array:
        if reading.whole.kind == "input":
            return arrays[reading.whole.name].copy()
        value = reading.value(inference.tensors.get(reading.place, ()))
        if value is None:
            raise RuntimeFailure(
                f"the board did not send {reading.tap.name!r}, though it was asked to",
                hint="does an operator of the firmware compute it? leave it out, or make the "
                "firmware anew: layertap firmware",
            )
        return value

    def _whole(self, inputs: Sequence[bytes]) -> Inference:
        """Run ``inputs`` until the inference comes whole. Raises RuntimeFailure."""
        session, why = self._session, ""
        for attempt in range(session.retries + 1):
            board = session.board()
            board.retried += bool(attempt)
            try:
                if board.configured is not self or board.has_restarted:
                    if session.keep_state and self._samples:
                        raise self._state_is_lost("the board started again")
                    self.configure(board)
                return self._once(board, inputs)
            except _Again as again:
                why = again.why
                if again.ran and session.keep_state:
                    raise self._state_is_lost(why) from None
        raise self._never_whole(board, why)

    def _once(self, board: Board, inputs: Sequence[bytes]) -> Inference:
        # Each attempt has a number of its own, so that what is left of the last one is not taken
        # for this one.
        number = next(board.numbers)
        fresh = not self._session.keep_state or self._samples == 0
        self._assembly.drop("")
        check = board.send_inputs(inputs)
        of = board.link.send(Run(number, RESETS_STATE if fresh else 0, check))
        return self._collected(board, number, of)

    def _collected(self, board: Board, number: int, of: int) -> Inference:
        """What comes up to the end of inference ``number``, which the command ``of`` has begun."""
        link, stale, heard = board.link, board.link.asked, time.monotonic()
        quiet = min(_ASK_AFTER, link.timeout / 2)
        while (now := time.monotonic()) < heard + link.timeout:
            event = link.receive(min(heard + link.timeout, heard + quiet))
            if event is None and time.monotonic() >= heard + quiet:
                link.send(Ask())
                quiet = 2 * (now - heard) + quiet
            if isinstance(event, Hello) and event.reason == STARTED:
                raise _Again("the board started again")
            if isinstance(event, Hello) and event.reason == ASKED:
                # A board answers in order: one that answers a question asked after RUN has done
                # with RUN, or has never heard of it.
                if stale == 0:
                    raise _Again("the board did not get the inputs, or what it sent was lost")
                stale -= 1
            if isinstance(event, Answer):
                self._answered(event, of)
            inference = None if event is None else self._assembly.take(event)
            if inference is not None and inference.number == number:
                return self._finished(board, inference)
            if isinstance(event, Tensor) and event.inference == number:
                heard, quiet = time.monotonic(), min(_ASK_AFTER, link.timeout / 2)
        raise link.silence()

    def _answered(self, answer: Answer, run: int) -> None:
        """``run`` is the number of the RUN; an INPUT has an answer only where it is refused."""
        if answer.command == Input.TYPE and answer.status not in (OK, INPUTS_DAMAGED):
            raise refused(answer, "INPUT")
        if answer.command != Run.TYPE or answer.of != run:
            return
        if answer.status == INPUTS_DAMAGED:
            raise _Again("the inputs did not reach the board whole", ran=False)
        if answer.status != OK:
            raise refused(answer, "RUN")

    def _finished(self, board: Board, inference: Inference) -> Inference:
        if not inference.whole:
            raise _Again(inference.why)
        if inference.status:
            said = f"; the last it printed: {board.link.last_line}" if board.link.last_line else ""
            raise RuntimeFailure(
                f"the model failed on the board with TfLiteStatus {inference.status}{said}",
                hint="TensorFlow Lite Micro prints why with its MicroPrintf, if that is built in",
            )
        return inference

    def _state_is_lost(self, why: str) -> RuntimeFailure:
        return RuntimeFailure(
            f"{why}, and what the model's variables held cannot be had again",
            hint="capture from the first sample again, or without keep_state=True",
        )

    def _never_whole(self, board: Board, why: str) -> LayertapError:
        found = board.link.decoder.diagnosis()
        if found is not None:
            return found
        tries = self._session.retries + 1
        return RuntimeFailure(
            f"an inference did not come whole in {tries} attempts: {why}",
            hint="a lower baud rate, flow control, fewer taps, or slices= and reduce=; more "
            "attempts: retries=N",
        )


__all__ = ["DevicePass"]
