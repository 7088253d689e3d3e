"""A board at the other end of a link: who it is, what it can do, what it is told to send."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from layertap.core.protocols import Json
from layertap.errors import PlanError, RuntimeFailure, SourceError, Untappable
from layertap.firmware.wire.frames import CHECK_BYTES, CONTENT_LIMIT
from layertap.firmware.wire.messages import (
    OK,
    TAKES_INPUTS,
    TAKES_RULE,
    TAKES_SELECT,
    Answer,
    FromHost,
    Hello,
    Input,
    Rule,
    Select,
    mask_bits,
    mask_bytes,
)
from layertap.runtimes.device.forms import Reading
from layertap.runtimes.device.link import STATUS, Link

_HEADER = 2 + 5 + 5 + CHECK_BYTES
"""Bytes of an INPUT or a SELECT that are not data: type, sequence, two varints, check sum."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a model from others: what people call it, its bytes and their CRC-32."""

    name: str
    size: int
    check: int

    @classmethod
    def of(cls, data: bytes, path: str | None) -> Identity:
        return cls(Path(path).name if path else "the model", len(data), zlib.crc32(data))

    def check_board(self, hello: Hello) -> None:
        """Raise SourceError when the board runs another model."""
        if (hello.model, hello.size) == (self.check, self.size):
            return
        there = f"{hello.name or 'a model without a name'!r}, {hello.size:,} bytes"
        raise SourceError(
            f"the board runs another model: {there}, CRC-32 {hello.model:08x}; "
            f"{self.name} has {self.size:,} bytes, CRC-32 {self.check:08x}",
            hint="open the file that its firmware was made from, or make firmware of this one: "
            "layertap firmware",
        )


class Board:
    """The board at the other end of ``link``, which has said ``hello``.

    Raises SourceError when it runs another model than ``identity``.
    """

    def __init__(self, link: Link, hello: Hello, identity: Identity) -> None:
        identity.check_board(hello)
        self.link = link
        self.hello = hello
        self.retried = 0
        """Inferences that were run again."""
        self.configured: object = None
        """What the board was last told to send; see :meth:`configure`."""
        self.starts = 0
        """Starts that the decoder had seen when it was told."""
        self.numbers = (number % (1 << 32) for number in itertools.count())
        """For inferences, each used once."""

    def facts(self) -> dict[str, Json]:
        """What a run should remember of it."""
        hello = self.hello
        return {"name": hello.name, "arena": hello.arena, "arena_used": hello.used}

    def counters(self) -> dict[str, int]:
        """Bytes, frames and losses so far, and inferences that were run again."""
        return {**self.link.counters(), "retried": self.retried}

    @property
    def room(self) -> int:
        """How many tensors it can send in part at once."""
        return self.hello.rules if self.hello.able & TAKES_RULE else 0

    @property
    def has_restarted(self) -> bool:
        """Whether it has started anew since it was told what to send."""
        return self.link.decoder.counters.starts != self.starts

    def require_inputs(self) -> None:
        """Raise PlanError for a board that sends on its own only."""
        if self.hello.able & TAKES_INPUTS and self.link.transport.two_way:
            return
        raise PlanError(
            f"the board on {self.link.transport.name} takes no inputs: it sends on its own",
            hint="layertap listen (layertap.listen) records what it sends",
        )

    def configure(self, readings: Sequence[Reading], every: int = 1) -> None:
        """Have the board send just ``readings``, of its own inferences every so many.

        Raises Untappable and PlanError where it cannot, Restarted, RuntimeFailure.
        """
        self.starts = self.link.decoder.counters.starts
        rules = [rule for reading in readings if (rule := reading.rule(every))]
        self._check_able(readings, rules, every)
        if self.hello.able & TAKES_RULE:
            self._order(Rule(0))
            for rule in rules:
                self._order(rule)
        if self.hello.able & TAKES_SELECT:
            mask = mask_bytes((reading.bit for reading in readings), self.hello.tensors)
            for first, part in pieces(mask, self._room()):
                self._order(Select(every, first, part))

    def _check_able(self, readings: Sequence[Reading], rules: Sequence[Rule], every: int) -> None:
        hello = self.hello
        if not hello.able & TAKES_SELECT:
            sent = set(mask_bits(hello.mask))
            for reading in readings:
                if reading.bit not in sent:
                    raise Untappable(
                        f"{reading.tap.name!r} cannot be read: the firmware's taps are fixed, and "
                        "it is not among them",
                        hint="make the firmware anew with this tap: layertap firmware --taps",
                    )
            if every != hello.every:
                raise PlanError(
                    f"the firmware sends every {hello.every}, which cannot be changed",
                    hint=f"every={hello.every}",
                )
        if len(rules) > self.room:
            raise PlanError(
                f"{len(rules)} taps are to be sent in part, the firmware has room for {self.room}",
                hint=f"make it anew with layertap firmware --rules {len(rules)}, or select fewer",
            )

    def send_inputs(self, inputs: Sequence[bytes]) -> int:
        """Send all inputs, in order; the CRC-32 of their bytes."""
        check = 0
        for number, data in enumerate(inputs):
            check = zlib.crc32(data, check)
            for offset, part in pieces(data, self._room()):
                self.link.send(Input(number, offset, part))
        return check

    def _room(self) -> int:
        """Bytes of data that one message to the board may carry."""
        room = min(self.hello.receive, CONTENT_LIMIT + CHECK_BYTES) - _HEADER
        if room < 1:
            raise RuntimeFailure(
                f"the board takes messages of {self.hello.receive} bytes, which is too small",
                hint=f"give its receiver a buffer of {2 * _HEADER} bytes or more",
            )
        return room

    def _order(self, message: FromHost) -> None:
        answer = self.link.command(message)
        if answer.status != OK:
            raise refused(answer, type(message).__name__.upper())

    def close(self) -> None:
        self.link.transport.close()


def refused(answer: Answer, command: str) -> RuntimeFailure:
    """The error for a command that the board does not carry out."""
    why = answer.text or STATUS.get(answer.status, f"status {answer.status}")
    return RuntimeFailure(
        f"the board refuses {command}: {why}",
        hint="is its firmware of this model and this layertap? layertap firmware makes it anew",
    )


def pieces(data: bytes, size: int) -> Iterable[tuple[int, bytes]]:
    """``data`` in pieces of at most ``size`` bytes, each with its offset; one if it is empty."""
    return [(at, data[at : at + size]) for at in range(0, max(1, len(data)), size)]


__all__ = ["Board", "Identity", "pieces", "refused"]
