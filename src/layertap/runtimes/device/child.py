"""A program as a board: an emulator, or firmware built for the host."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from typing import IO

from layertap.errors import SourceError
from layertap.runtimes.device.streams import Descriptors

_log = logging.getLogger("layertap.device")

_GRACE = 1.0
"""Seconds that the program has to end by itself before it is killed."""

_PIPE_BYTES = 1 << 20

_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[3:])
"""
"""Linux only: the program is killed with the process that started it, however that one ends
(PR_SET_PDEATHSIG, see prctl(2))."""


class Child(Descriptors):
    """The program's standard input and output as a transport; what it writes to standard error goes
    to the log. It ends with the transport, at the latest with this process.

    Raises SourceError for a command that cannot be started.
    """

    def __init__(self, command: str, *, patience: float) -> None:
        arguments = _arguments(command)
        try:
            # In a session of its own, Ctrl-C in a terminal is layertap's to handle.
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise SourceError(
                f"cannot start {command!r}: {error.strerror}", hint="check the command"
            ) from error
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        _enlarge(process.stdout)
        self.process = process
        self._errors = _Errors(process.stderr)
        super().__init__(
            repr(command),
            process.stdout.fileno(),
            process.stdin.fileno(),
            patience=patience,
            release=weakref.finalize(self, _end, process, self._errors),
        )

    def ended_well(self) -> bool:
        return self.process.poll() == 0

    def last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE)
        code = self.process.poll()
        if code is None:
            how = "it closed its output"
        elif code < 0:
            how = f"killed by {_signal_name(-code)}"
        else:
            how = f"exit status {code}"
        self._errors.finish()
        return f"{how}; {self._errors.last}" if self._errors.last else how


class _Errors:
    """Standard error, line by line into the log, in a thread of its own; the last line is kept."""

    def __init__(self, source: IO[bytes]) -> None:
        self.last = ""
        self._source = source
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with self._source:
            while line := self._source.readline(4096):
                text = line.decode("utf-8", "replace").strip()
                if text:
                    self.last = text[:400]
                    _log.info("%s", text)

    def finish(self) -> None:
        """Wait for what is still in the pipe."""
        self._thread.join(_GRACE)


def _arguments(command: str) -> list[str]:
    """The command's words, its program found on the path and tied to this process."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SourceError(
            f"the command {command!r} cannot be read: {error}", hint="check its quotes"
        ) from error
    if not words:
        raise SourceError("there is no command after exec:", hint="as in exec:./firmware")
    program = shutil.which(words[0])
    if program is None:
        raise SourceError(
            f"there is no program {words[0]!r}",
            hint="check the path, whether it may be executed, or install it",
        )
    if sys.platform != "linux":
        return [program, *words[1:]]
    tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid())]
    return [*tied, os.path.abspath(program), *words]  # noqa: PTH100 - must not follow links


def _enlarge(pipe: IO[bytes]) -> None:
    """Let the program write more before it waits for layertap."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _end(process: subprocess.Popen[bytes], errors: _Errors) -> None:
    """End the program and what it started in its session."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    process.stdout.close()
    errors.finish()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


__all__ = ["Child"]
