"""LiteRT and TensorFlow Lite Micro: a data set of small samples, one capture, from ``open`` to the
first values; by hand is an interpreter in the same process that keeps all tensors, and a list for
each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.models import tflite_file
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
    compared_afresh,
    disk,
    write_raw,
)

import layertap
from layertap.api import Model
from layertap.core.dtypes import Array
from layertap.core.graph import COMPUTED
from layertap.demo import asset

FIRST = {"layertap": Goal(extra=0.25)}
CAPTURE = {"layertap": Goal({HAND: 1}, 2e-3)}
"""The inference itself, which takes more than 2 ms in some, and that much."""
SMALL_SECONDS = 10e-6
"""What a sample may take beyond the time by hand, where that is below 0.02 ms."""
PIECE = 100
"""Samples of which the values of a tensor are written in one go."""

Values = dict[int, list[Array]]
ByHand = Callable[[Array], Values]
"""Runs each sample; the values of each tensor in a list."""
MakeByHand = Callable[[Path, list[int]], ByHand]
"""Of a file, for these tensors."""


@dataclass(frozen=True)
class Work:
    """A file; ``small`` where a sample takes less than 0.02 ms."""

    file: str
    samples: int
    small: bool = False


def rows_of(runtime: str, works: tuple[Work, ...], by_hand: MakeByHand) -> list[Row]:
    found = {work: tflite_file(work.file) for work in works}
    files = {work: path for work, path in found.items() if path is not None}
    files = files or {Work("digits_int8", 1000): asset("digits_int8.tflite")}
    return [row for work, path in files.items() for row in _work(runtime, work, path, by_hand)]


def _work(runtime: str, work: Work, path: Path, by_hand: MakeByHand) -> Iterator[Row]:
    with layertap.open(path, runtime=runtime) as model:
        computed = [tap for tap in model.graph if tap.kind in COMPUTED]
        hand = by_hand(path, [tap.index for tap in computed])
        (spec,) = model.session.inputs
        size = (work.samples, *spec.shape[1:])
        x = np.random.default_rng(0).integers(-128, 128, size).astype(np.int8)
        _same(model, hand, x[:2])
        name = f"{runtime}, {path.stem}, {len(computed)} taps"
        yield from _data_set(name, work, model, hand, x)
        contenders: dict[str, Call] = {
            HAND: partial(hand, x[:1]),
            "layertap": partial(model.capture, x[:1]),
        }
        title = f"{name}: one capture of one sample"
        yield from compared(title, contenders, CAPTURE, budget=2, repeat=5)
    program = ["benchmarks.user_path.first", "tflite", runtime, str(path)]
    yield from compared_afresh(f"{name}: from open to the first values", program, FIRST)


def _data_set(name: str, work: Work, model: Model, hand: ByHand, x: Array) -> list[Row]:
    bar = Goal({HAND: 1}, SMALL_SECONDS * len(x)) if work.small else Goal({HAND: 1.3})
    output = [tap.name for tap in model.graph.of_kind("output")]
    some = x[:PIECE]
    values = [np.ascontiguousarray(capture.raw) for capture in model.capture(some).values()]
    with disk() as (folder, prepare):
        contenders: dict[str, Call] = {
            HAND: partial(hand, x),
            MEMORY: partial(model.capture, x),
            "layertap, its output alone": partial(model.capture, x, output),
            RAW: partial(write_raw, folder / "raw", values, len(x) // len(some)),
            DISK: partial(model.capture, x, to=folder / "run.zarr"),
        }
        goals = {MEMORY: bar, **TO_DISK}
        title = f"{name}: a data set of {len(x):,} samples"
        return compared(title, contenders, goals, budget=8, prepare=prepare)


def _same(model: Model, hand: ByHand, x: Array) -> None:
    """Both ways give the same values, or the figures would mean nothing. Kernels that are chosen
    otherwise where tensors are kept may round otherwise."""
    run, kept = model.capture(x), hand(x)
    for tap in run.taps:
        mine = run[tap.name].raw.astype(np.int64)
        other = np.concatenate(kept[tap.index]).astype(np.int64).reshape(mine.shape)
        assert np.abs(mine - other).max() <= 2, tap.name


def kept_by(
    samples: Array, indices: list[int], run: Callable[[Array], None], get: Callable[[int], Any]
) -> Values:
    """Every tensor's value of each sample."""
    kept: Values = {index: [] for index in indices}
    for i in range(len(samples)):
        run(samples[i : i + 1])
        for index, values in kept.items():
            values.append(get(index))
    return kept
