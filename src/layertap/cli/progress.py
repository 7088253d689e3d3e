"""A progress bar on standard error for work that takes longer than a moment."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

from layertap.cli.table import counted
from layertap.core.run import Progress
from layertap.core.units import format_bytes

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

PATIENCE = 1.0
"""Seconds before the bar appears."""

WINDOW = 5.0
"""Seconds over which the rate is taken, and between lines where there is no terminal."""


class ProgressBar:
    """Call it with a run's progress. On a terminal it draws a bar, once the work has taken a
    second; elsewhere it is silent, or prints a line every few seconds with ``force``."""

    def __init__(self, *, force: bool | None = None) -> None:
        self._terminal = sys.stderr.isatty()
        self._wanted = self._terminal if force is None else force
        self._start = time.monotonic()
        self._told = -WINDOW
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._marks: deque[tuple[float, int]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        waited = time.monotonic() - self._start
        if not self._wanted:
            return
        rate = self._rate(progress.samples)
        if self._terminal and waited >= PATIENCE:
            self._draw(progress, rate)
        elif not self._terminal and waited - self._told >= WINDOW:
            self._told = waited
            of = progress.total_samples
            done = f"{progress.samples:,} of {counted(of, 'sample')}" if of is not None else ""
            size = format_bytes(progress.bytes)
            told = f"capturing: {done or counted(progress.samples, 'sample')}, {size} {rate}"
            print(told.rstrip(), file=sys.stderr, flush=True)

    def _draw(self, progress: Progress, rate: str) -> None:
        if self._bar is None or self._task is None:
            self._bar = _bar()
            self._task = self._bar.add_task("capturing", total=None, unit="", written="", rate="")
            self._bar.start()
        by_sample = progress.total_samples is not None or progress.total_batches is None
        self._bar.update(
            self._task,
            completed=progress.samples if by_sample else progress.batches,
            total=progress.total_samples if by_sample else progress.total_batches,
            unit="samples" if by_sample else "batches",
            written=format_bytes(progress.bytes),
            rate=rate,
        )

    def _rate(self, samples: int) -> str:
        """Samples per second over the last moments, without what a resumed run skips at once."""
        now = time.monotonic()
        self._marks.append((now, samples))
        while len(self._marks) > 2 and self._marks[0][0] < now - WINDOW:
            self._marks.popleft()
        then, before = self._marks[0]
        return f"{(samples - before) / (now - then):,.3g} samples/s" if now > then else ""


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[written]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )


__all__ = ["ProgressBar"]
