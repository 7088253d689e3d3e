"""Transports over file descriptors: files, FIFOs, standard input, sockets."""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from layertap.errors import RuntimeFailure, SourceError
from layertap.runtimes.device.transport import STANDARD_INPUT, Ended, Transport

READ_BYTES = 1 << 18
"""Most that one read takes."""

_SERVERS = (
    "is the server running? RTT: OpenOCD 'rtt server start 9090 0', J-Link port 19021, "
    "probe-rs the socket of an up channel in Embed.toml"
)


class Descriptors:
    """Reads one file descriptor and writes another, neither of which it blocks on for longer than
    asked; ``release`` closes them. ``write`` is None for one way.
    """

    replays = False

    def __init__(
        self,
        name: str,
        read: int,
        write: int | None,
        *,
        patience: float,
        release: Callable[[], object],
    ) -> None:
        self.name = name
        self.two_way = write is not None
        self._read, self._write = read, write
        self._patience = patience
        self._release = release
        self._ahead: list[bytes] = []
        self._closed = False
        self._over = False
        self._readable = select.poll()
        self._readable.register(read, select.POLLIN)
        if write is not None:
            os.set_blocking(write, False)

    def read(self, timeout: float, /) -> bytes:
        if self._ahead:
            data = b"".join(self._ahead)
            self._ahead.clear()
            return data
        if self._over:
            raise self.ended()
        if not self._readable.poll(max(0.0, timeout) * 1000):
            return b""
        data = self._take()
        if not data and self._over:
            raise self.ended()
        return data

    def write(self, data: bytes, /) -> None:
        """Reads meanwhile: a board that is stuck sending would never take what it is sent."""
        if self._write is None:
            raise RuntimeFailure(
                f"{self.name} goes one way only", hint="layertap listen records what comes"
            )
        left = memoryview(data)
        deadline = time.monotonic() + self._patience
        while left:
            can_read, can_write = self._wait(self._write, deadline - time.monotonic())
            if not (can_read or can_write):
                raise RuntimeFailure(
                    f"the board on {self.name} takes no bytes: {len(left):,} were not sent within "
                    f"{self._patience:g} s",
                    hint="does its firmware read its input? more time: timeout=SECONDS",
                )
            if can_read:
                self._ahead.append(self._take())
            if can_write:
                left = left[self._put(left) :]
                deadline = time.monotonic() + self._patience

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._release()

    def last_words(self) -> str:
        """More about an end, where something is known."""
        return ""

    def ended_well(self) -> bool:
        """Whether the end is what one expects of a stream like this."""
        return True

    def ended(self) -> Ended:
        """The error for the end of what is read."""
        words = self.last_words()
        return Ended(
            f"{self.name} has ended{f': {words}' if words else ''}",
            hint="start it again; what was captured before stays",
            expected=self.ended_well(),
        )

    def _take(self) -> bytes:
        try:
            data = os.read(self._read, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError:  # the connection was reset: nothing more comes
            data = b""
        self._over = not data
        return data

    def _wait(self, write: int, seconds: float) -> tuple[bool, bool]:
        """Whether there is something to read, and whether something can be written (or failed)."""
        wanted = {write: select.POLLOUT}
        if not self._over:
            wanted[self._read] = wanted.get(self._read, 0) | select.POLLIN
        poll = select.poll()
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        ready = dict(poll.poll(max(0.0, seconds) * 1000))
        ends = select.POLLHUP | select.POLLERR
        can_read = not self._over and bool(ready.get(self._read, 0) & (select.POLLIN | ends))
        return can_read, bool(ready.get(write, 0) & (select.POLLOUT | ends))

    def _put(self, data: memoryview) -> int:
        assert self._write is not None
        try:
            return os.write(self._write, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self.ended() from error


class _Recording(Descriptors):
    """A file with what a board has sent."""

    replays = True


def stream(path: str, *, patience: float) -> Transport:
    """A file, a FIFO, a Unix socket, or ``-`` for standard input. Raises SourceError."""
    if path == STANDARD_INPUT:
        return Descriptors("standard input", 0, None, patience=patience, release=lambda: None)
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISSOCK(mode):
            return _connected(socket.AF_UNIX, path, path, patience)
        # Without O_NONBLOCK, opening a FIFO waits for its writer, beyond any time-out.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise SourceError(
            f"{path!r} cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from error
    if stat.S_ISDIR(mode):
        os.close(descriptor)
        raise SourceError(f"{path!r} is a folder", hint="give a serial port, a file or a FIFO")
    kind = _Recording if stat.S_ISREG(mode) else Descriptors
    return kind(path, descriptor, None, patience=patience, release=lambda: os.close(descriptor))


def tcp(url: str, *, patience: float) -> Transport:
    """A connection to ``tcp://HOST:PORT``. Raises SourceError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise SourceError(f"{url!r} names no host and port", hint="as in tcp://localhost:9090")
    family = socket.AF_INET6 if ":" in host else socket.AF_UNSPEC
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except OSError as error:
        raise SourceError(
            f"there is no host {host!r}: {error.strerror}", hint="check the name"
        ) from error
    failed: SourceError | None = None
    for family, _, _, _, address in found:  # localhost is ::1 and 127.0.0.1
        try:
            return _connected(family, address, url, patience)
        except OSError as error:
            failed = SourceError(f"cannot connect to {url}: {_why(error)}", hint=_SERVERS)
            failed.__cause__ = error
    assert failed is not None
    raise failed


def _connected(family: int, address: object, name: str, patience: float) -> Descriptors:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(patience)
        connection.connect(address)  # type: ignore[arg-type]  # what its family takes
        if family != socket.AF_UNIX:
            # A command is a few bytes that must not wait for more.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    number = connection.fileno()
    return Descriptors(name, number, number, patience=patience, release=connection.close)


def _why(error: OSError) -> str:
    return "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error))


__all__ = ["Descriptors", "stream", "tcp"]
