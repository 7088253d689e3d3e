"""How long it takes to say where every byte of a model lives: seconds, for models of 1,000 and of
10,000 tensors, long chains and wide ones with branches that stay alive."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from layertap.arena.mapping import memory_map
from layertap.arena.target import load_target
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import parse

ROUNDS = 3
SIZES = ((1_000, 1.0), (10_000, 20.0))


def chain(count: int) -> bytes:
    """Each tensor is computed from the one before."""
    return _model(count, lambda i: [i])


def branches(count: int) -> bytes:
    """Each tensor is computed from the one before and from one of a hundred early ones, which thus
    all stay alive to the end."""
    return _model(count, lambda i: [i, i % 100 if i > 100 else 0])


def _model(count: int, operands: Callable[[int], list[int]]) -> bytes:
    tensors = [TensorSpec(f"t{i}", (1, 16 + i % 97)) for i in range(count)]
    steps = [OperatorSpec("ADD", operands(i), [i + 1]) for i in range(count - 1)]
    return write_tflite(SubgraphSpec(tensors, [0], [count - 1], steps))


def _seconds(data: bytes) -> float:
    start = time.perf_counter()
    memory_map(parse(data), load_target("cortex-m"))
    return time.perf_counter() - start


def rows() -> list[dict[str, object]]:
    """Rows whose ratio is in seconds, parsing included; the bar is in seconds, too."""
    found: list[dict[str, object]] = []
    for make in (chain, branches):
        for count, bar in SIZES:
            data = make(count)
            found.append(
                {
                    "work": f"memory map of {count:,} tensors, {make.__name__} (seconds)",
                    "contender": "layertap",
                    "ratio": statistics.median(_seconds(data) for _ in range(ROUNDS)),
                    "bar": bar,
                }
            )
    return found
