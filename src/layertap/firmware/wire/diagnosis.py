"""What a stream as a whole says about the board and the link."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from layertap.errors import WireError
from layertap.firmware.wire.messages import Done, Hello, Message, Tensor, other_wire

LOOP_STARTS, LOOP_SECONDS = 3, 60.0
"""So many starts within so many seconds are a board that reboots in a loop."""
_BAUD_RATES = "9600, 57600, 115200, 230400, 460800, 921600"
_LINES, _LINE_LETTERS = 3, 80
_ENOUGH = 64
"""Bytes from which a judgement is made on; fewer are the spikes of a board that is plugged in."""


@dataclass(slots=True)
class Counters:
    """What has come so far."""

    bytes: int = 0
    """All bytes."""
    frames: int = 0
    """Undamaged frames."""
    payload: int = 0
    """Bytes of tensors in them."""
    text: int = 0
    """Bytes of text."""
    noise: int = 0
    """Bytes that were neither frame nor text."""
    damaged: int = 0
    """Frames that arrived damaged."""
    translated: int = 0
    r"""Those of them that ``\n`` turned into ``\r\n`` has damaged."""
    unknown: int = 0
    """Undamaged frames that hold no message of this version."""
    lost: int = 0
    """Frames that are missing by their sequence numbers, those that arrived damaged included."""
    late: int = 0
    """Frames that arrived behind frames that were sent after them."""
    repeated: int = 0
    """Frames whose number was there before."""
    starts: int = 0
    """HELLOs that say that the board has started."""
    echoes: int = 0
    """Messages of a host: what was sent comes back."""


class Starts:
    """When a board has started, and the last that was heard of it before."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=32)
        self._message = self._message_before = ""
        self._lines: list[str] = []
        self._lines_before: list[str] = []

    def add(self) -> None:
        """It has started."""
        self._times.append(self._clock())
        self._message_before, self._lines_before = self._message, self._lines
        self._message, self._lines = "", []

    def heard(self, message: Message) -> None:
        if isinstance(message, Tensor):
            place = f"tensor {message.tensor} of subgraph {message.subgraph}"
            self._message = f"{place}, inference {message.inference}"
        elif isinstance(message, Done):
            self._message = f"the end of inference {message.inference}"
        if not isinstance(message, Hello):
            self._lines = []

    def said(self, line: str) -> None:
        """A line was printed. The first ones behind a frame name the cause of a crash, the later
        ones are often the start-up code's."""
        if line.strip() and len(self._lines) < _LINES:
            self._lines.append(line.strip()[:_LINE_LETTERS])

    def loop(self) -> WireError | None:
        """The error that says so, when the board reboots in a loop."""
        now = self._clock()
        times = [at for at in self._times if at > now - LOOP_SECONDS]
        if len(times) < LOOP_STARTS:
            return None
        last = f"; the last before it: {self._message_before or 'nothing'}"
        printed = f"; it printed {' / '.join(self._lines_before)!r}" if self._lines_before else ""
        return WireError(
            f"the board has started {len(times)} times in {times[-1] - times[0]:.1f} s"
            f"{last}{printed}",
            hint="a crash, a watchdog or weak power resets it: docs/device-troubles.md",
        )


def diagnosis(counters: Counters, starts: Starts, version: int | None) -> WireError | None:
    """What is wrong with a stream, with a hint; None when nothing is, or nothing has come.

    ``version`` is the wire version of the last HELLO where it was another than this package's.
    """
    if version is not None:
        return other_wire(version)
    if loop := starts.loop():
        return loop
    if counters.translated:
        return _translated(counters)
    if counters.echoes:
        return _echo()
    if counters.frames:
        return _lossy(counters)
    return _no_frame(counters)


def _translated(counters: Counters) -> WireError:
    return WireError(
        rf"{counters.translated:,} frames were damaged by a console that writes \r\n for \n",
        hint="switch the translation of line ends off on the board, for example "
        "stdio_set_translate_crlf(&stdio_usb, false) on a Pico, "
        "CONFIG_LIBC_STDOUT_LINE_ENDING_LF=y with ESP-IDF (CONFIG_NEWLIB_... before 5.5)",
    )


def _echo() -> WireError:
    return WireError(
        "what is sent comes back: the port echoes, or its lines are bridged",
        hint="open the port of the board itself, and switch echo off on it",
    )


def _lossy(counters: Counters) -> WireError | None:
    bad = counters.damaged + counters.noise // 256
    if bad * 10 < counters.frames + bad:
        return None
    return WireError(
        f"{counters.damaged:,} of {counters.frames + counters.damaged:,} frames arrived damaged, "
        f"{counters.noise:,} bytes are neither frame nor text",
        hint="a lower baud rate, flow control, or LAYERTAP_LOCK() where other tasks print: "
        "docs/device-troubles.md",
    )


def _no_frame(counters: Counters) -> WireError | None:
    other = counters.bytes - counters.text
    if counters.bytes < _ENOUGH:
        return None
    if 4 * other <= counters.bytes:
        return WireError(
            f"{counters.text:,} bytes of text came, and no frame",
            hint="this firmware has no layertap in it, its Probe has no sink, or it has run no "
            "inference yet",
        )
    if counters.noise + counters.damaged == 0:
        return WireError(
            f"{counters.bytes:,} bytes came, nearly all of them zeros",
            hint="the baud rate is far above the firmware's, or the line is held low: check the "
            "rate, the wires, and the board's power",
        )
    return WireError(
        f"{counters.bytes:,} bytes came and no frame among them: the baud rate looks wrong",
        hint=f"give the firmware's own; usual ones: {_BAUD_RATES}",
    )


__all__ = ["LOOP_SECONDS", "LOOP_STARTS", "Counters", "Starts", "diagnosis"]
