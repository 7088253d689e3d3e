"""Ctrl-C while something must be left as it was found."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


class Deferred:
    """Inside this context an interrupt waits for its end, but for the parts that are
    :meth:`allowed` to be interrupted.

    Only what Python itself handles is deferred, and only in the main thread, the one that gets it.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._open = self._pending = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._before = handler
                signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is None:
            return
        signal.signal(signal.SIGINT, self._before)
        if self._pending:
            self._pending = False
            self._before(signal.SIGINT, None)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """A part that may be interrupted; what was deferred so far comes at once."""
        self._open = True
        try:
            if self._pending:
                self._pending = False
                self._interrupted(signal.SIGINT, None)
            yield
        finally:
            self._open = False

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if not self._open:
            self._pending = True
            return
        # From here on nothing interrupts what puts things back.
        self._open = False
        self._before(number, frame)
        self._open = True
