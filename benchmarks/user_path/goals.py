"""What a contender may take, and the rows that tell whether it did.

A work has several contenders, timed by turns in one process, the first of which the others are
ratios to. A goal adds up what others took in the same round.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.timing import rounds_of

HAND = "by hand"
MEMORY = "layertap, in memory"
DISK = "layertap, to disk"
RAW = "raw write() of the same bytes"

ROUNDS = 25
"""More are not needed."""

Call = Callable[[], object]
Row = dict[str, Any]
Seconds = Mapping[str, Sequence[float]]
"""What each contender took, round by round."""


@dataclass(frozen=True)
class Goal:
    """At most what other contenders take, each times its factor, and ``extra`` seconds."""

    times: Mapping[str, float] = field(default_factory=dict)
    extra: float = 0.0

    def shares(self, name: str, seconds: Seconds) -> list[float]:
        """What ``name`` took of what it may, round by round."""
        return [
            taken / (sum(f * seconds[other][i] for other, f in self.times.items()) + self.extra)
            for i, taken in enumerate(seconds[name])
        ]

    def __str__(self) -> str:
        terms = [other if f == 1 else f"{f:g} × {other}" for other, f in self.times.items()]
        if self.extra:
            terms.append(f"{self.extra * 1e3:g} ms")
        return "≤ " + " + ".join(terms)


TO_DISK = {DISK: Goal({MEMORY: 1, RAW: 1.2})}


def judged(work: str, seconds: Seconds, goals: Mapping[str, Goal]) -> list[Row]:
    """A row for each contender: ``seconds`` and ``ratio`` to the first one, ``goal`` in words and
    ``share`` of it that was taken, None without a goal; all are medians over the rounds."""
    first = next(iter(seconds.values()))
    return [
        {
            "work": work,
            "contender": name,
            "seconds": statistics.median(taken),
            "ratio": statistics.median(a / b for a, b in zip(taken, first, strict=True)),
            "goal": str(goals.get(name, "")),
            "share": statistics.median(goals[name].shares(name, seconds))
            if name in goals
            else None,
        }
        for name, taken in seconds.items()
    ]


def compared(
    work: str,
    contenders: Mapping[str, Call],
    goals: Mapping[str, Goal],
    *,
    budget: float,
    repeat: int = 1,
    prepare: Call = lambda: None,
) -> list[Row]:
    """The rows of one work, in as many rounds as ``budget`` seconds have room for."""
    seconds = rounds_of(contenders, ROUNDS, repeat=repeat, prepare=prepare, budget=budget)
    return judged(work, seconds, goals)


def compared_afresh(
    work: str, program: Sequence[str], goals: Mapping[str, Goal], rounds: int = 3
) -> list[Row]:
    """The rows of one work that can be done once in a process: ``python -m`` followed by
    ``program`` prints what each contender took, as JSON."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        command = [sys.executable, "-m", *program]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120)
        for name, taken in json.loads(done.stdout.splitlines()[-1]).items():
            found.setdefault(name, []).append(taken)
    return judged(work, found, goals)


@contextlib.contextmanager
def disk() -> Iterator[tuple[Path, Call]]:
    """A folder to write to, and what empties it before each contender and lets the disk finish."""
    with tempfile.TemporaryDirectory(prefix="layertap-bench-") as name:
        folder = Path(name) / "work"

        def prepare() -> None:
            if not folder.exists() or any(folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                os.sync()

        yield folder, prepare


def write_raw(path: Path, blocks: Sequence[Any], times: int) -> None:
    """Write the bytes of these arrays ``times`` over, one ``write()`` each, to one file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    for _ in range(times):
        for block in blocks:
            os.write(descriptor, block.data)
    os.close(descriptor)
