"""Messages to and from a board over a transport."""

from __future__ import annotations

import logging
import re
import time
from collections import deque

from layertap.errors import LayertapError, RuntimeFailure, WireError
from layertap.firmware.wire.decoder import Damage, Decoder, Event, Kind, Text
from layertap.firmware.wire.messages import (
    ASKED,
    FAILED,
    NO_ROOM,
    OK,
    OUT_OF_RANGE,
    STARTED,
    UNABLE,
    Answer,
    Ask,
    FromHost,
    Hello,
    pack,
)
from layertap.runtimes.device.transport import Ended, Transport

_printed = logging.getLogger("layertap.device")
"""What the board prints goes here, at the level info."""
_log = logging.getLogger("layertap.device.link")

_ASK_AGAIN = 0.5
"""Seconds after which a command that got no answer is sent again."""

_LACKS = re.compile(r"missing: (\d+)|[Nn]eeded (\d+) but only (\d+)")
"""What TensorFlow Lite Micro prints of an arena that does not suffice. Source: tflite-micro,
tensorflow/lite/micro/arena_allocator/ and micro_allocator.cc."""

STATUS = {
    OUT_OF_RANGE: "out of range",
    NO_ROOM: "no room",
    UNABLE: "the board cannot do that",
    FAILED: "failed",
}


class Restarted(Exception):
    """The board has started again; what it was told is forgotten."""


class Link:
    """One conversation with a board.

    ``timeout``: seconds that a message may take. The decoder's counters tell what came and what
    was lost.
    """

    def __init__(self, transport: Transport, *, timeout: float) -> None:
        self.transport = transport
        self.timeout = timeout
        self.decoder = Decoder()
        self.asked = 0
        """ASKs that were sent and have not been answered."""
        self.last_line = ""
        self._lacks = 0
        """Bytes that its arena lacks, as far as it has printed that since it started."""
        self.broken = False
        """Whether the transport has failed or ended."""
        self._sequence = 0
        self._events: deque[Event] = deque()

    def send(self, message: FromHost) -> int:
        """Send a message; its sequence number. Raises RuntimeFailure."""
        number, self._sequence = self._sequence, (self._sequence + 1) % 256
        if isinstance(message, Ask):
            self.asked += 1
        try:
            self.transport.write(pack(message, number))
        except RuntimeFailure:
            self.broken = True
            raise
        return number

    def receive(self, until: float) -> Event | None:
        """The next event but text, which goes to the log; None when none comes until the time
        ``until`` (of the monotonic clock).

        Raises Ended, RuntimeFailure also for a board that says that it cannot run, and WireError
        for one that speaks another wire version.
        """
        while True:
            while self._events:
                event = self._events.popleft()
                if not isinstance(event, Text):
                    return self._seen(event)
                self.last_line = event.line or self.last_line
                self._lacks = max(self._lacks, _lacking(event.line))
                _printed.info("%s", event.line)
            try:
                data = self.transport.read(max(0.0, until - time.monotonic()))
            except Ended:
                self.broken = True
                self._events.extend(self.decoder.finish())
                if not self._events:
                    raise
                continue
            self._events.extend(self.decoder.feed(data))
            if not self._events and time.monotonic() >= until:
                return None

    def _seen(self, event: Event) -> Event:
        if isinstance(event, Damage):
            _log.debug("%s: %s", self.transport.name, event.message)
            if event.kind is Kind.WIRE:
                raise self.decoder.diagnosis() or WireError(event.message)
        elif isinstance(event, Hello) and event.reason == STARTED:
            self.asked = self._lacks = 0
        elif isinstance(event, Hello) and event.reason == ASKED:
            self.asked = max(0, self.asked - 1)
        elif isinstance(event, Answer) and event.command == 0 and event.status != OK:
            # Nobody asked: the firmware cannot do its work at all.
            raise self._unable(event)
        return event

    def _unable(self, answer: Answer) -> RuntimeFailure:
        why = answer.text or STATUS.get(answer.status, f"status {answer.status}")
        lacks = f"; it printed that {self._lacks:,} bytes are missing" if self._lacks else ""
        more = (
            f"an arena of at least {self._lacks:,} bytes more: layertap firmware --arena BYTES"
            if self._lacks
            else "mend its firmware (docs/device-troubles.md), or have it made anew with layertap "
            "firmware"
        )
        return RuntimeFailure(
            f"the board on {self.transport.name} cannot run the model: {why}{lacks}", hint=more
        )

    def greeting(self, *, ask: bool = True) -> Hello:
        """The next HELLO, asked for where the transport allows it. Raises RuntimeFailure when the
        board is silent, WireError when what it says is none of layertap's."""
        start = time.monotonic()
        deadline, asked = start + self.timeout, -1.0
        while time.monotonic() < deadline:
            now = time.monotonic()
            if ask and self.transport.two_way and now - asked >= _ASK_AGAIN:
                asked = now
                self.send(Ask())
            try:
                event = self.receive(min(deadline, now + _ASK_AGAIN))
            except Ended as end:
                found = self.decoder.diagnosis() if end.expected else None
                if found is None:
                    raise
                raise found from end
            if isinstance(event, Hello):
                return event
        raise self.silence()

    def command(self, message: FromHost) -> Answer:
        """Send ``message`` until it is answered. Raises Restarted, and RuntimeFailure for a board
        that is silent."""
        sent: set[int] = set()
        deadline = time.monotonic() + self.timeout
        again = 0.0
        while (now := time.monotonic()) < deadline:
            if now >= again:
                sent.add(self.send(message))
                again = now + _ASK_AGAIN
            event = self.receive(min(deadline, again))
            if isinstance(event, Hello) and event.reason == STARTED:
                raise Restarted
            if isinstance(event, Answer) and event.command == message.TYPE and event.of in sent:
                return event
        raise self.silence()

    def silence(self) -> LayertapError:
        """The error for a board that did not say what it should have said in time."""
        found = self.decoder.diagnosis()
        if found is not None:
            return found
        name = self.transport.name
        if self.decoder.counters.frames:
            said = f"; the last it printed: {self.last_line}" if self.last_line else ""
            return RuntimeFailure(
                f"the board on {name} has not answered for {self.timeout:g} s{said}",
                hint="is it stuck, or does it take longer? more time: timeout=SECONDS",
            )
        return RuntimeFailure(
            f"the board on {name} is silent: nothing of layertap came within {self.timeout:g} s",
            hint="is it powered, is this its port, does its firmware run layertap's Board? "
            "more time: timeout=SECONDS",
        )

    def counters(self) -> dict[str, int]:
        """What has come and what was lost so far; ``text`` and ``payload`` in bytes."""
        found = self.decoder.counters
        names = ("bytes", "frames", "payload", "text", "lost", "damaged", "starts")
        return {name: getattr(found, name) for name in names}


def _lacking(line: str) -> int:
    """The bytes that a line says are missing; 0 for one that is of something else."""
    found = _LACKS.search(line)
    if found is None:
        return 0
    missing, needed, there = found.groups()
    return int(missing) if missing else int(needed) - int(there)


__all__ = ["STATUS", "Link", "Restarted"]
