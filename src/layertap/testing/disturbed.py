"""Captures that are disturbed: by an interrupt at one of their lines, by other threads."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import layertap

_OWN = str(Path(layertap.__file__).parent)
_NOT_LOOKED_AT = ("testing",)


class _Lines:
    """Counts the lines of layertap's own that run in this thread; raises SIGINT at line ``at``."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.count = at, 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(_OWN) or any(part in name for part in _NOT_LOOKED_AT):
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.count += 1
            if self.count == self.at:
                signal.raise_signal(signal.SIGINT)
        return self._line


def _traced(lines: _Lines, work: Callable[[], object]) -> None:
    before = sys.gettrace()
    sys.settrace(lines)
    try:
        work()
    finally:
        sys.settrace(before)


def interrupted(
    work: Callable[[], object], check: Callable[[int], None], points: int
) -> Sequence[int]:
    """Interrupt ``work`` at up to ``points`` of its lines, as Ctrl-C would, one after the other;
    ``check`` gets the line each time afterwards. Returns the lines at which no KeyboardInterrupt
    came out. For the main thread."""
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    quiet = []
    try:
        whole = _Lines()
        _traced(whole, work)
        step = max(1, whole.count // points)
        for at in range(1, whole.count + 1, step):
            try:
                _traced(_Lines(at), work)
                quiet.append(at)
            except KeyboardInterrupt:
                pass
            check(at)
    finally:
        signal.signal(signal.SIGINT, before)
    return quiet


def together(*works: Callable[[], object], times: int) -> list[BaseException]:
    """Do each of ``works`` that many times in a thread of its own, all at once; what they raise."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(works))

    def repeated(work: Callable[[], object]) -> None:
        try:
            start.wait(timeout=60)
            for _ in range(times):
                work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeated, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads), "a thread waits for ever"
    return failures
