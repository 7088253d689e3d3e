"""Timing that other work on the same machine disturbs least."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    repeat: int = 1,
    prepare: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Median ratio of each contender's time to that of the first one in the same round, timed as in
    :func:`rounds_of`."""
    seconds = rounds_of(contenders, rounds, repeat=repeat, prepare=prepare)
    first = next(iter(seconds.values()))
    return {
        name: statistics.median(a / b for a, b in zip(taken, first, strict=True))
        for name, taken in seconds.items()
    }


FEWEST = 3
"""Rounds that are run however long they take."""

Round = tuple[float, float]
"""A contender's time by that of the first one, and the seconds that all of them took together."""


def ratios(seconds: Mapping[str, list[float]]) -> dict[str, list[Round]]:
    """What :func:`rounds_of` returned, as each contender's rounds."""
    first = next(iter(seconds.values()))
    total = [sum(together) for together in zip(*seconds.values(), strict=True)]
    return {
        name: [(a / b, c) for a, b, c in zip(taken, first, total, strict=True)]
        for name, taken in seconds.items()
    }


def quiet_median(rounds: Sequence[Round]) -> float:
    """Median ratio of the quietest quarter of ``rounds``: of those that took least in all. That
    choice favours none of the contenders, since it does not know who took the time."""
    quiet = sorted(rounds, key=itemgetter(1))[: -(-len(rounds) // 4)]
    return statistics.median(ratio for ratio, _ in quiet)


def rounds_of(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    repeat: int = 1,
    prepare: Callable[[], object] = lambda: None,
    budget: float = float("inf"),
) -> dict[str, list[float]]:
    """Seconds that each contender took in each round.

    Every round runs all contenders, in an order that turns from round to round; ``prepare`` runs
    before each of them and is not timed. One round beforehand warms up and is not counted. What is
    called ``repeat`` times in a round counts by its fastest call, as with Python's ``timeit``:
    whatever else the machine does, and the caches that another contender left, can only add.
    After ``budget`` seconds no further round is begun, but for the first three.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    end = time.monotonic() + budget
    gc.collect()
    gc.freeze()  # what is there now need not be looked through each time
    for turn in range(rounds + 1):
        if turn > FEWEST and time.monotonic() > end:
            break
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            prepare()
            gc.collect()
            taken = min(_seconds(contenders[name]) for _ in range(repeat))
            if turn:
                seconds[name].append(taken)
    gc.unfreeze()
    return seconds


def _seconds(contender: Callable[[], object]) -> float:
    start = time.perf_counter()
    contender()
    return time.perf_counter() - start


def hold_memory() -> None:
    """Keep freed memory in the process.

    glibc otherwise gives it back after some rounds and not after others, and page faults then
    become a part of the time of a pass, whoever reads.
    """
    trim_threshold, mmap_threshold = -1, -3  # the names are those of mallopt(3)
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 1 << 30)
        mallopt(mmap_threshold, 1 << 30)
