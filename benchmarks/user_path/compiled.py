"""What Keras and TensorFlow have in common: a compiled call to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from benchmarks.user_path.goals import (
    DISK,
    HAND,
    MEMORY,
    RAW,
    TO_DISK,
    Call,
    Goal,
    Row,
    compared,
    disk,
    write_raw,
)

import layertap
from layertap.api import Model
from layertap.core.dtypes import Array

BATCHES = 20
BARE = "the compiled call"
RUN = {MEMORY: Goal({BARE: 1.05}), **TO_DISK}
FIRST = {"layertap": Goal({BARE: 1.5})}


@dataclass(frozen=True)
class Compiled:
    """The function, the same with every value as an output, and the model opened in layertap."""

    function: Callable[..., Any]
    reading: Callable[..., Any]
    model: Model
    x: Array

    def bare(self, batches: int) -> list[Array]:
        return [self.function(tf.constant(self.x)).numpy() for _ in range(batches)]

    def by_hand(self, batches: int) -> list[list[Array]]:
        called = (self.reading(tf.constant(self.x)) for _ in range(batches))
        return [[value.numpy() for value in values] for values in called]

    def capture(self, batches: int, **options: Any) -> layertap.Run:
        return self.model.capture(iter([self.x] * batches), **options)


def run(name: str, compiled: Compiled) -> list[Row]:
    """Twenty batches, in memory and on disk."""
    values = [np.ascontiguousarray(capture.raw) for capture in compiled.capture(1).values()]
    with disk() as (folder, prepare):
        contenders: dict[str, Call] = {
            HAND: partial(compiled.by_hand, BATCHES),
            BARE: partial(compiled.bare, BATCHES),
            MEMORY: partial(compiled.capture, BATCHES),
            RAW: partial(write_raw, folder / "raw", values, BATCHES),
            DISK: partial(compiled.capture, BATCHES, to=folder / "run.zarr"),
        }
        work = f"{name}: a run of {BATCHES} batches"
        return compared(work, contenders, RUN, budget=6, prepare=prepare)


def one_capture(name: str, compiled: Compiled) -> list[Row]:
    contenders: dict[str, Call] = {
        HAND: partial(compiled.by_hand, 1),
        BARE: partial(compiled.bare, 1),
        "layertap": partial(compiled.capture, 1),
    }
    work = f"{name}: one capture of one batch"
    return compared(work, contenders, {}, budget=3, repeat=10)


def first_call(
    name: str, make: Callable[[], tuple[Any, Callable[..., Any]]], x: Array
) -> list[Row]:
    """What compiles a model that was just made: ``make`` gives it, and a function that calls it.
    Making it is not timed; TensorFlow and layertap are imported."""
    made: list[tuple[Any, Callable[..., Any]]] = []

    def prepare() -> None:
        made.append(make())

    contenders: dict[str, Call] = {
        BARE: lambda: made.pop()[1](tf.constant(x)).numpy(),
        "layertap": lambda: layertap.open(made.pop()[0]).capture(x),
    }
    work = f"{name}: the first call"
    return compared(work, contenders, FIRST, budget=6, prepare=prepare)
