"""The process of a worker, from its start to its end."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from layertap.runtimes.worker.block import Block
from layertap.runtimes.worker.failure import WorkerFailure, late, lost
from layertap.runtimes.worker.wire import Header, receive, send

_GRACE = 2.0
"""Seconds for a message that has begun to arrive whole, and for a process that ends to be gone."""

_WAIT = 3600.0
"""Seconds that a socket waits at most before the clock is looked at again."""

_KEPT = 1 << 20
"""Native messages beyond this many bytes are dropped between two requests."""

Hear = Callable[[Header], None]

_SHOWN = 4000
"""Characters of native messages that an error holds."""


class Child:
    """A process that runs the program ``engine`` and answers one request after the other.

    ``greeted``: it has started. ``pending``: it has not answered what it was asked last, so that
    the conversation cannot go on.
    """

    def __init__(self, engine: Path) -> None:
        self.owner = os.getpid()
        self.greeted = self.pending = False
        self._requests = self._read = 0
        with contextlib.ExitStack() as undo:
            self.block = Block.made()
            undo.callback(self.block.close)
            self._errors = undo.enter_context(tempfile.TemporaryFile(buffering=0))
            ours, theirs = socket.socketpair()
            self._channel = undo.enter_context(ours)
            with theirs:
                self.process = _started(engine, theirs, self.block, self._errors)
            held = (self.owner, self.process, self._channel, self.block, self._errors)
            self._end = weakref.finalize(self, _end, *held)
            undo.pop_all()

    def greet(self, seconds: float) -> None:
        """Wait until it has started. Raises WorkerFailure."""
        self.pending = True
        self._listen(seconds, "the worker did not start")
        self.greeted, self.pending = True, False

    def ask(self, header: Mapping[str, Any], payload: bytes, seconds: float, hear: Hear) -> None:
        """Send a request and wait until it is done, for so long from one execution to the next;
        ``hear`` gets what is said meanwhile. Raises WorkerFailure."""
        self.pending = True
        self._requests += 1
        self._forget_messages()
        self.block.tell(0)
        self._send({**header, "request": self._requests, "timeout": seconds}, payload, seconds)
        late = "the model did not finish"
        while not (message := self._listen(seconds, late)).keys() & {"end", "error"}:
            hear(message)
        self.pending = False
        if "error" in message:
            native = "\n".join(filter(None, (self._messages(), message["error"])))
            raise WorkerFailure(message["error"], native=native, crashed=False)

    def is_gone(self) -> bool:
        """Whether this process has no such child, or the child has ended."""
        return self.owner != os.getpid() or self.process.poll() is not None

    def stop(self) -> None:
        """End the process, whatever it does. Idempotent."""
        self._end()

    def _send(self, header: Mapping[str, Any], payload: bytes, seconds: float) -> None:
        self._channel.settimeout(min(seconds, _WAIT))
        try:
            send(self._channel, header, payload)
        except TimeoutError:
            self.process.kill()
        except ConnectionError:
            pass  # Listening tells what happened to it.

    def _listen(self, seconds: float, what: str) -> Header:
        """The next message. Raises WorkerFailure."""
        if not self._hears(seconds):
            self.process.kill()
            raise late(what, seconds, self._messages())
        self._channel.settimeout(_GRACE)
        try:
            header, _ = receive(self._channel)
        except (EOFError, TimeoutError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=_GRACE)
            raise lost(self.process.poll(), self._messages()) from None
        if header.get("request", self._requests) != self._requests:
            raise lost(None, "it answered another request")
        return header

    def _hears(self, seconds: float) -> bool:
        """Whether there is something to receive before an execution takes so long."""
        due = time.monotonic() + seconds
        while (left := due - time.monotonic()) > 0:
            self._channel.settimeout(min(left, _WAIT))
            with contextlib.suppress(TimeoutError):
                # The end counts as something, too.
                with contextlib.suppress(ConnectionError):
                    self._channel.recv(1, socket.MSG_PEEK)
                return True
            due = max(due, self.block.told[0] + seconds)
        return False

    def _forget_messages(self) -> None:
        """Keep the file of native messages from growing with the number of samples."""
        self._read = os.fstat(self._errors.fileno()).st_size
        if self._read > _KEPT:
            self._errors.seek(0)
            self._errors.truncate()
            self._read = 0

    def _messages(self) -> str:
        """What native code printed since the last request."""
        end = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(self._read, end - _SHOWN))
        # Leaves the position, which the child shares, at the end again.
        return self._errors.read().decode("utf-8", "replace").strip()


def _started(
    engine: Path, channel: socket.socket, block: Block, errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    """The process that runs ``engine``, in a session of its own: a terminal's Ctrl-C is not for
    it."""
    descriptors = (channel.fileno(), block.descriptor)
    return subprocess.Popen(
        # -P: a file of the working directory must not shadow a module.
        [sys.executable, "-P", str(engine), *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        stdout=errors,
        stderr=errors,
        pass_fds=descriptors,
        env=_environment(),
        start_new_session=True,
    )


def _end(
    owner: int,
    process: subprocess.Popen[bytes],
    channel: socket.socket,
    block: Block,
    errors: IO[bytes],
) -> None:
    channel.close()
    # A fork of the owner has descriptors of its own, but no such child.
    if owner == os.getpid():
        process.kill()
        process.wait()
    block.close()
    errors.close()


def _environment() -> dict[str, str]:
    """The caller's environment, with the layertap that the caller runs."""
    here = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    # LIBC_FATAL_STDERR_: glibc's last words belong to stderr, not to the terminal.
    # OPENBLAS_NUM_THREADS: NumPy multiplies nothing there, and need not start threads for it.
    return {
        **os.environ,
        "PYTHONPATH": path,
        "LIBC_FATAL_STDERR_": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


__all__ = ["Child"]
