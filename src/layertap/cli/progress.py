"""A progress bar on standard error for work that takes longer than a moment."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

from layertap.core.run import Progress
from layertap.core.units import format_bytes

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

PATIENCE = 1.0
"""Seconds before the bar appears."""

WINDOW = 5.0
"""Seconds over which the rate is taken."""


class ProgressBar:
    """Call it with a run's progress. Draws only on a terminal, unless ``force``; work that is done
    within a second draws nothing."""

    def __init__(self, *, force: bool | None = None) -> None:
        self._wanted = sys.stderr.isatty() if force is None else force
        self._forced = bool(force)
        self._start = time.monotonic()
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
        if not self._wanted:
            return
        waited = time.monotonic() - self._start
        if self._bar is None and (waited >= PATIENCE or self._forced):
            self._bar = _bar()
            self._task = self._bar.add_task("capturing", total=None, unit="", written="", rate="")
            self._bar.start()
        if self._bar is None or self._task is None:
            return
        by_sample = progress.total_samples is not None or progress.total_batches is None
        done = progress.samples if by_sample else progress.batches
        self._bar.update(
            self._task,
            completed=done,
            total=progress.total_samples if by_sample else progress.total_batches,
            unit="samples" if by_sample else "batches",
            written=format_bytes(progress.bytes),
            rate=self._rate(progress.samples),
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
