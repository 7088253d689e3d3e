"""What carries bytes between layertap and a board, and how a user names it."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Protocol

from layertap.errors import RuntimeFailure, SourceError
from layertap.runtimes.registry import find_runtime, missing_runtime

CHILD = "exec:"
STANDARD_INPUT = "-"
_SCHEME = re.compile(r"[a-z][a-z0-9+]*://", re.IGNORECASE)


class Transport(Protocol):
    """Bytes from and to a board. Single-threaded; ``close`` is idempotent.

    ``name`` is what messages call it; ``two_way`` tells whether :meth:`write` can be called;
    ``replays`` whether this is something recorded, which need not be waited for.
    """

    name: str
    two_way: bool
    replays: bool

    def read(self, timeout: float, /) -> bytes:
        """What has come; an empty text when nothing came within ``timeout`` seconds.

        Raises Ended at the end, and RuntimeFailure.
        """
        ...

    def write(self, data: bytes, /) -> None:
        """Send all of ``data``. Raises Ended when nobody is there any more, and RuntimeFailure
        when nobody takes it."""
        ...

    def close(self) -> None: ...


class Ended(RuntimeFailure):
    """Nothing more comes. ``expected``: as streams end when all is well, of a file or a program,
    rather than because the board was unplugged or the program has failed."""

    def __init__(self, message: str, *, hint: str, expected: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.expected = expected


def open_transport(port: str | Path, *, baud: int, patience: float) -> Transport:
    """The transport that ``port`` names.

    ``tcp://HOST:PORT``, ``exec:COMMAND ARGUMENTS``, ``-`` (standard input), a file, a FIFO or a
    Unix socket, a serial port (``/dev/ttyACM0``, ``COM3``, or a URL of pySerial). ``baud`` is for
    serial ports. ``patience``: seconds after which a connection, or a write, has failed.

    Raises SourceError, and MissingRuntime for a serial port without pySerial.
    """
    text = str(port)
    if not text:
        raise SourceError("the port is an empty text", hint="as in port='/dev/ttyACM0'")
    if text.startswith(CHILD):
        from layertap.runtimes.device.child import Child

        return Child(text.removeprefix(CHILD), patience=patience)
    if text.lower().startswith("tcp://"):
        from layertap.runtimes.device.streams import tcp

        return tcp(text, patience=patience)
    if text == STANDARD_INPUT or _is_stream(text):
        from layertap.runtimes.device.streams import stream

        return stream(text, patience=patience)
    try:
        from layertap.runtimes.device.serial_port import SerialPort
    except ModuleNotFoundError as error:
        raise missing_runtime(find_runtime(None, "device"), error.name or "serial") from error

    return SerialPort(text, baud=baud, patience=patience)


def _is_stream(text: str) -> bool:
    """Whether ``text`` is the path of something to read that is no serial port."""
    if _SCHEME.match(text):
        return False
    try:
        mode = Path(text).stat().st_mode
    except OSError:
        return False
    return not stat.S_ISCHR(mode)


__all__ = ["CHILD", "STANDARD_INPUT", "Ended", "Transport", "open_transport"]
