"""What a board prints, shown to the user."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from layertap.cli.table import printable

_PRINTED = "layertap.device"


class _Lines(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        who = "board" if record.name == _PRINTED else "note"
        self._show(f"{who}: {printable(record.getMessage())}")


@contextmanager
def showing_board(show: Callable[[str], None] | None = None) -> Iterator[None]:
    """Pass each line that a board prints, and what is lost on the way, to ``show``; to standard
    error without one."""
    log, handler = logging.getLogger(_PRINTED), _Lines(show or _to_stderr)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


__all__ = ["showing_board"]
