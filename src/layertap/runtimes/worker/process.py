"""The session's side of a worker: start it, talk to it, outlive it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from layertap.core.dtypes import Array
from layertap.errors import RuntimeFailure
from layertap.runtimes.worker.wire import Header, receive, send

_GRACE = 2.0
"""Seconds after the session's deadline at which a worker whose session is gone ends itself."""

_START = 60.0
"""Seconds that a worker has to start, if not more are allowed for a request: it imports a
framework, from a cold disk perhaps, before it can tell how long a model takes."""

_KEPT = 1 << 20
"""Native messages beyond this many bytes are dropped between two requests."""

_SHOWN = 4000
_LINE = 400
"""Characters of native messages that an error holds in all, and in its one-line message."""


class NativeError(Exception):
    """What the native code printed or raised."""


class WorkerFailure(RuntimeFailure):
    """A request failed in the worker.

    ``native`` is what the native code said, ``said`` the same on one line, or what happened when
    it said nothing; ``crashed`` tells whether the process is gone, ``expired`` whether it was
    ended for taking too long.
    """

    def __init__(
        self,
        message: str,
        *,
        native: str,
        crashed: bool,
        expired: bool = False,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.native = native
        self.said = _one_line(native) or message
        self.crashed = crashed
        self.expired = expired
        self.__cause__ = NativeError(native) if native else None


def _one_line(native: str) -> str:
    lines = dict.fromkeys(line.strip() for line in native.splitlines())
    joined = "; ".join(line for line in lines if line and not line.startswith("INFO:"))
    return joined if len(joined) <= _LINE else f"{joined[:_LINE]} ..."


class Worker:
    """A child process that runs ``module``; started when first needed, and again after a crash.

    ``timeout``: seconds that a request may take; starting is not part of it.
    ``generation`` counts the starts, so that callers see that what they loaded is gone.
    """

    def __init__(self, module: str, *, timeout: float) -> None:
        self._module = module
        self._timeout = timeout
        self._child: _Child | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self.generation = 0

    def request(
        self, header: Mapping[str, Any], arrays: Sequence[Array] = ()
    ) -> tuple[Header, list[Array]]:
        """Send one request and wait for its answer. Raises WorkerFailure."""
        child = self.start()
        child.forget_messages()
        with self._patience(child, self._timeout, "the model did not finish"):
            with contextlib.suppress(BrokenPipeError):
                send(child.requests, {**header, "timeout": self._timeout + _GRACE}, arrays)
            answer, values = receive(child.answers)
        if "error" in answer:
            native = "\n".join(filter(None, (child.messages(), answer["error"])))
            raise WorkerFailure(answer["error"], native=native, crashed=False)
        return answer, values

    def start(self) -> _Child:
        """The running child, started if there is none, it died, or its time was up just when it
        answered."""
        child = self._child
        if child is not None and (child.expired or child.process.poll() is not None):
            self.stop()
        if self._child is None:
            self._child = child = _Child(self._module)
            self._finalizer = weakref.finalize(self, child.stop)
            self.generation += 1
            with self._patience(child, max(self._timeout, _START), "the worker did not start"):
                receive(child.answers)
        return self._child

    @contextlib.contextmanager
    def _patience(self, child: _Child, seconds: float, late: str) -> Iterator[None]:
        """Wait for the child for so long; whatever goes wrong, it does not stay behind."""
        deadline = threading.Timer(seconds, child.expire)
        deadline.daemon = True
        deadline.start()
        try:
            yield
        except EOFError:
            raise self._lost(child, f"{late} within {seconds:g} s") from None
        except BaseException:
            # Interrupted midway, the conversation cannot be taken up again.
            self.stop()
            raise
        finally:
            deadline.cancel()
            # No thread stays behind, and whether the time was up is settled.
            deadline.join()

    def stop(self) -> None:
        """End the child, if there is one. Idempotent."""
        if self._finalizer is not None:
            self._finalizer()
        self._child = self._finalizer = None

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.process.pid

    def _lost(self, child: _Child, late: str) -> WorkerFailure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(timeout=_GRACE)
        code, native = child.process.poll(), child.messages()
        self.stop()
        if child.expired:
            return WorkerFailure(
                late,
                native=native,
                crashed=True,
                expired=True,
                hint="give more time with timeout=SECONDS",
            )
        said = native.rpartition("\n")[2]
        message = f"{_obituary(code)}: {said}" if said else _obituary(code)
        return WorkerFailure(message, native=native, crashed=True)


class _Child:
    def __init__(self, module: str) -> None:
        self._errors = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by stop()
        self._read = 0
        self.expired = False
        self.process = subprocess.Popen(
            # -P: a file of the working directory must not shadow a module.
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(),
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests: IO[bytes] = self.process.stdin
        self.answers: IO[bytes] = self.process.stdout

    def expire(self) -> None:
        self.expired = True
        self.process.kill()

    def forget_messages(self) -> None:
        """Keep the file of native messages from growing with the number of samples."""
        self._read = os.fstat(self._errors.fileno()).st_size
        if self._read > _KEPT:
            self._errors.seek(0)
            self._errors.truncate()
            self._read = 0

    def messages(self) -> str:
        """What native code printed since the last request."""
        end = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(self._read, end - _SHOWN))
        # Leaves the position, which the child shares, at the end again.
        return self._errors.read().decode("utf-8", "replace").strip()

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.requests.close()
        self.process.kill()
        self.process.wait()
        self.answers.close()
        self._errors.close()


def _environment() -> dict[str, str]:
    """The caller's environment, with the layertap that the caller runs."""
    here = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    # LIBC_FATAL_STDERR_: glibc's last words belong to stderr, not to the terminal.
    return {**os.environ, "PYTHONPATH": path, "LIBC_FATAL_STDERR_": "1"}


def _obituary(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"the interpreter crashed with {signal.Signals(-code).name}"
    return f"the interpreter's process ended with status {code}"


__all__ = ["NativeError", "Worker", "WorkerFailure"]
