"""What becomes of a request that a worker cannot answer."""

from __future__ import annotations

import contextlib
import signal

from layertap.errors import RuntimeFailure

_LINE = 400
"""Characters of native messages that the one-line message of an error holds."""


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


def late(what: str, seconds: float, native: str) -> WorkerFailure:
    """The failure of a worker that was ended because ``what`` took more than ``seconds``."""
    return WorkerFailure(
        f"{what} within {seconds:g} s",
        native=native,
        crashed=True,
        expired=True,
        hint="give more time with timeout=SECONDS",
    )


def lost(code: int | None, native: str) -> WorkerFailure:
    """The failure of a worker whose process ended by itself, with exit status ``code``."""
    said = native.rpartition("\n")[2]
    message = f"{_obituary(code)}: {said}" if said else _obituary(code)
    return WorkerFailure(message, native=native, crashed=True)


def _obituary(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"the interpreter crashed with {signal.Signals(-code).name}"
    return f"the interpreter's process ended with status {code}"


def _one_line(native: str) -> str:
    lines = dict.fromkeys(line.strip() for line in native.splitlines())
    joined = "; ".join(line for line in lines if line and not line.startswith("INFO:"))
    return joined if len(joined) <= _LINE else f"{joined[:_LINE]} ..."


__all__ = ["NativeError", "WorkerFailure", "late", "lost"]
