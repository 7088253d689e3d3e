"""Damaged models in both .tflite runtimes: an error or a result, never the end of the caller."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import layertap
from layertap.errors import LayertapError
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite

pytestmark = pytest.mark.slow

PATIENCE = 5.0
"""Seconds that the interpreter may take; models run for microseconds."""


def small() -> bytes:
    weights = np.ones((4, 8), np.float32)
    tensors = [TensorSpec("x", (1, 8)), TensorSpec("w", (4, 8), data=weights)]
    tensors += [TensorSpec("y", (1, 4)), TensorSpec("z", (1, 4)), TensorSpec("out", (1, 4))]
    operators = [OperatorSpec("FULLY_CONNECTED", [0, 1, -1], [2]), OperatorSpec("RELU", [2], [3])]
    operators.append(OperatorSpec("LOGISTIC", [3], [4]))
    return write_tflite(SubgraphSpec(tensors, [0], [4], operators))


def mutants(whole: bytes, count: int) -> Iterator[bytes]:
    """Flipped bytes, most of them where the file describes itself, and truncations."""
    rng = random.Random(11)
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[rng.randrange(8, len(data))] = rng.choice(
                [0, 1, 4, 0x7F, 0xFF, rng.randrange(256)]
            )
        yield bytes(data[: rng.randrange(len(data)) if rng.random() < 0.05 else None])


def feed_of(model: layertap.Model) -> dict[str, np.ndarray]:
    feed = {}
    for spec in model.session.inputs:
        shape = [1 if size is None else size for size in spec.shape or ()]
        if np.prod(shape, dtype=float) > 1e6:
            raise LayertapError("too large to feed")
        feed[spec.name] = np.ones(shape, spec.dtype or "float32")
    return feed


@pytest.mark.parametrize("runtime", ["tflm", "litert"])
@pytest.mark.parametrize("name", ["small", "tflm/hello_world_int8", "tflm/simple_add_model"])
def test_flipped_bytes(runtime: str, name: str, request: pytest.FixtureRequest) -> None:
    if name == "small":
        whole = small()
    else:
        shared: Path = request.getfixturevalue("shared")
        whole = (shared / "models" / f"{name}.tflite").read_bytes()
    survived = 0
    for data in mutants(whole, 12):
        started = time.monotonic()
        try:
            with layertap.open(data, runtime=runtime, timeout=PATIENCE) as model:
                run = model.capture(feed_of(model), budget="100MB")
                survived += 1
                assert all(capture.raw is not None for capture in run.values())
        except LayertapError as error:
            assert error.message
        assert time.monotonic() - started < 12 * PATIENCE
    assert survived
