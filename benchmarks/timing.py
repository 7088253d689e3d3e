"""Timing that other work on the same machine disturbs least."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    prepare: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Median ratio of each contender's time to that of the first one in the same round, timed as in
    :func:`rounds_of`."""
    seconds = rounds_of(contenders, rounds, prepare=prepare)
    first = next(iter(seconds.values()))
    return {
        name: statistics.median(a / b for a, b in zip(taken, first, strict=True))
        for name, taken in seconds.items()
    }


def rounds_of(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    prepare: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds that each contender took in each round.

    Every round runs all contenders, in an order that turns from round to round; ``prepare`` runs
    before each of them and is not timed. One round beforehand warms up and is not counted.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            prepare()
            gc.collect()
            start = time.perf_counter()
            contenders[name]()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds
