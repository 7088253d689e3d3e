"""Bytes from a board, in any portions, into messages, text and what was wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from layertap.errors import WireError
from layertap.firmware.wire.diagnosis import Counters, Starts, diagnosis
from layertap.firmware.wire.frames import BODY_LIMIT, MARK, from_body
from layertap.firmware.wire.messages import (
    STARTED,
    WIRE,
    FromHost,
    Hello,
    Message,
    Tensor,
    unpack,
    wire_version,
)
from layertap.firmware.wire.sequence import Order, Sequence
from layertap.firmware.wire.text import Lines, salvaged

_PORTION = 1 << 16
"""Bytes that are cut into segments at a time, which bounds the memory that feeding takes."""
_MARK = bytes((MARK,))
_NOISE = "bytes are neither frame nor text"


@dataclass(frozen=True, slots=True)
class Text:
    """A line that the firmware printed, without its end."""

    line: str


class Kind(Enum):
    """What can be wrong with a stream."""

    FRAME = "frame"
    """Between two zeros was a frame that is damaged, too long, or not closed."""
    TRANSLATED = "translated"
    r"""A frame that is right once every ``\r\n`` in it is ``\n`` again."""
    NOISE = "noise"
    """Bytes that are neither frame nor text; ``count`` bytes."""
    JOINED = "joined"
    """The first bytes were the end of something that began before the host listened."""
    LOST = "lost"
    """``count`` frames are missing before the next one, by their sequence numbers."""
    LATE = "late"
    """The next frame was sent before frames that came before it."""
    REPEATED = "repeated"
    """The next frame has a number that was there before."""
    MESSAGE = "message"
    """A frame arrived undamaged, but what it holds is no message of this version."""
    WIRE = "wire"
    """A HELLO of another wire version."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it should be, ``count`` times in a row.

    ``message`` says it in one line; ``str()`` of it has the count too.
    """

    kind: Kind
    message: str
    count: int = 1

    def __str__(self) -> str:
        return self.message if self.count == 1 else f"{self.message}: {self.count:,}"


Event = Message | Text | Damage


class Decoder:
    """Cuts a stream into events, whatever the bytes are.

    Its memory is bounded by the longest frame and it looks at every byte a bounded number of
    times. ``clock`` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counters = Counters()
        self.starts = Starts(clock)
        self.other_wire: int | None = None
        """The wire version of the last HELLO, if it was not this one."""
        self._lines = Lines()
        self._body: bytearray | None = None
        self._joining = True
        self._sequence = Sequence()
        self._events: list[Event] = []

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes, in the order of the stream; never raises."""
        data = bytes(data)
        self.counters.bytes += len(data)
        for at in range(0, len(data), _PORTION):
            *ended, rest = data[at : at + _PORTION].split(b"\x00")
            for segment in ended:
                self._take(segment)
                self._close()
            self._take(rest)
        return self._events_so_far()

    def finish(self) -> list[Event]:
        """What is left at the end of the stream: a last line, or a frame that was cut off."""
        self._say(self._lines.flush())
        if self._body is not None:
            self._close()
        return self._events_so_far()

    def diagnosis(self) -> WireError | None:
        """What is wrong with the stream as a whole, with a hint; None when nothing is."""
        return diagnosis(self.counters, self.starts, self.other_wire)

    def _events_so_far(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _take(self, part: bytes) -> None:
        """Bytes without a zero."""
        if self._body is None:
            text, mark, part = part.partition(_MARK)
            if text:
                self._say(self._lines.take(text))
            if not mark:
                return
            self._say(self._lines.flush())
            self._body = bytearray()
        room = BODY_LIMIT + 1 - len(self._body)
        self._body += part[:room]
        if len(self._body) > BODY_LIMIT:
            # No frame: go on as if outside, or a crash that talks on would never be heard.
            self._close()
            self._take(part[room:])

    def _close(self) -> None:
        """A zero, or no room left: the end of a frame, or of text."""
        if self._body is None:
            self._say(self._lines.flush())
        else:
            body, self._body = bytes(self._body), None
            self._frame(body)
        self._joining = False

    def _frame(self, body: bytes) -> None:
        try:
            content = from_body(body)
        except WireError as error:
            self._broken(body, error)
            return
        self.counters.frames += 1
        try:
            message = unpack(content)
        except WireError as error:
            self._unknown(content, error)
            return
        self._message(message, content[1])

    def _message(self, message: Message, number: int) -> None:
        if isinstance(message, Hello):
            self.other_wire = None
            if message.reason == STARTED:
                self._sequence.restart()
                self.counters.starts += 1
                self.starts.add()
        self._order(number)
        if isinstance(message, FromHost):
            self.counters.echoes += 1
        elif isinstance(message, Tensor):
            self.counters.payload += len(message.payload)
        self.starts.heard(message)
        self._events.append(message)

    def _order(self, number: int) -> None:
        sequence, counters = self._sequence, self.counters
        order = sequence.take(number)
        skipped = sequence.lost - counters.lost
        counters.lost, counters.late = sequence.lost, sequence.late
        counters.repeated = sequence.repeated
        if order is Order.AFTER_LOSS:
            message = "a frame is missing" if skipped == 1 else "frames are missing"
            self._damage(Kind.LOST, message, skipped)
        elif order is Order.LATE:
            self._damage(Kind.LATE, "a frame came behind frames that were sent after it")
        elif order is Order.REPEATED:
            self._damage(Kind.REPEATED, "a frame came again, or more than 127 are missing")

    def _broken(self, body: bytes, error: WireError) -> None:
        """A frame that does not pass; text behind it is let through."""
        if self._joining:
            self._damage(Kind.JOINED, "a frame had begun before the host listened")
        elif b"\r\n" in body and _is_frame(body.replace(b"\r\n", b"\n")):
            self.counters.translated += 1
            self.counters.damaged += 1
            self._damage(Kind.TRANSLATED, "a frame is damaged: \\n became \\r\\n on the way")
        else:
            self.counters.damaged += 1
            self._damage(Kind.FRAME, error.message)
        if text := salvaged(body):
            self._say([*self._lines.take(text), *self._lines.flush()])

    def _unknown(self, content: bytes, error: WireError) -> None:
        """An undamaged frame that holds no message of this version."""
        self.counters.unknown += 1
        version = wire_version(content)
        if version not in (None, WIRE):
            self.other_wire = version
            self._damage(Kind.WIRE, error.message)
            return
        self._order(content[1])
        self._damage(Kind.MESSAGE, error.message)

    def _say(self, lines: list[str | int]) -> None:
        """Text and noise go out; noise that follows noise is one event with it."""
        self.counters.text, self.counters.noise = self._lines.text, self._lines.noise
        for line in lines:
            if isinstance(line, str):
                self.starts.said(line)
                self._events.append(Text(line))
                continue
            self._damage(Kind.JOINED if self._joining else Kind.NOISE, _NOISE, line)

    def _damage(self, kind: Kind, message: str, count: int = 1) -> None:
        """One more event, or a larger count of the last one, or a line of noise would flood."""
        last = self._events[-1] if self._events else None
        if isinstance(last, Damage) and (last.kind, last.message) == (kind, message):
            count += last.count
            self._events.pop()
        self._events.append(Damage(kind, message, count))


def _is_frame(body: bytes) -> bool:
    try:
        from_body(body)
    except WireError:
        return False
    return True


__all__ = ["Counters", "Damage", "Decoder", "Event", "Kind", "Text"]
