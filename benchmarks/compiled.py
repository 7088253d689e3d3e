"""Reading taps of a TensorFlow function beside its compiled call, which the ratios are to.

For orientation: it is the inner pass of a run, prepared once; what people call is measured in
:mod:`benchmarks.user_path`. The compiled call starts from the same array and ends with its output
as NumPy; the captures are NumPy arrays too. The C library keeps memory that was freed (see
:func:`timing.hold_memory`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from benchmarks import timing

from layertap.core.dtypes import Array
from layertap.core.graph import TapPoint
from layertap.core.protocols import Session

CALLS = 20
"""Calls in one timed step: single ones are too short to time beside a garbage collection."""

Call = Callable[[], object]


def compiled(function: Callable[..., Any], x: Array) -> Call:
    """One call of ``function``, from NumPy to NumPy."""
    return lambda: function(tf.constant(x)).numpy()


def captures(
    session: Session, x: Array, chosen: Mapping[str, Sequence[TapPoint]]
) -> dict[str, Call]:
    """One pass for each of the selections, by its name."""
    feed = {session.inputs[0].name: x}
    passes = {name: session.prepare(taps) for name, taps in chosen.items()}

    def emit(tap: object, value: object) -> None:
        pass

    def capture(name: str) -> Call:
        return lambda: passes[name](feed, emit)

    return {name: capture(name) for name in passes}


def ratios(work: str, calls: Mapping[str, Call], rounds: int) -> list[dict[str, object]]:
    """One row for each contender but the first, which the ratios are to: medians over the quietest
    of the rounds, which are in the rows too."""
    timing.hold_memory()
    timed = {name: _often(call) for name, call in calls.items()}
    return [
        {"work": work, "contender": name, "bar": None}
        | {"ratio": timing.quiet_median(of), "rounds": of}
        for name, of in list(timing.ratios(timing.rounds_of(timed, rounds)).items())[1:]
    ]


def _often(call: Call) -> Call:
    def calls() -> None:
        for _ in range(CALLS):
            call()

    return calls
