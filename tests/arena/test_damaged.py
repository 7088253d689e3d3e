"""Damaged models: the memory map refuses them or tells, at once, and nothing else comes out."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from layertap.arena.mapping import memory_map, tapped
from layertap.arena.price import prices
from layertap.arena.target import load_target
from layertap.errors import CorruptModel, LayertapError, SourceError
from layertap.testing.tflite import (
    OperatorSpec,
    SignatureSpec,
    SubgraphSpec,
    TensorSpec,
    write_tflite,
)
from layertap.tflite.edit import OFFLINE_PLAN
from layertap.tflite.graph import tap_graph
from layertap.tflite.model import TfliteModel, parse

TARGETS = [load_target("host", "8f6596d"), load_target("cortex-m", "90b983c")]
WORDS = (0, 1, 2, 16, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def looping() -> bytes:
    """A loop, a variable, weights and a layout: something of everything that is walked."""
    pair = [TensorSpec("a", (1, 8)), TensorSpec("b", (1, 8))]
    flag = [TensorSpec("a", (1, 8)), TensorSpec("go", (1,), "bool")]
    weights = np.ones((8, 8), np.float32)
    tensors = [TensorSpec("x", (1, 8)), TensorSpec("y", (1, 8)), TensorSpec("z", (1, 8))]
    tensors += [TensorSpec("w", (8, 8), data=weights), TensorSpec("v", (1, 8), variable=True)]
    main = SubgraphSpec(
        tensors,
        [0],
        [2],
        [
            OperatorSpec("WHILE", [0], [1], {0: 1, 1: 2}),
            OperatorSpec("FULLY_CONNECTED", [1, 3, -1], [2]),
        ],
    )
    cond = SubgraphSpec(flag, [0], [1], [OperatorSpec("LESS", [0, 0], [1])])
    body = SubgraphSpec(pair, [0], [1], [OperatorSpec("LOGISTIC", [0], [1])])
    layout = np.array([1, 3, 9, 0, 32, 64, -1, -1, *[-1] * 4], "<i4").tobytes()
    signature = SignatureSpec("serve", {"in": 0}, {"out": 2})
    metadata = {OFFLINE_PLAN: layout}
    return write_tflite(main, cond, body, signatures=[signature], metadata=metadata)


def mutants(whole: bytes, count: int) -> Iterator[bytes]:
    """Flipped bytes, wild words and truncations; most where the file describes itself."""
    rng = random.Random(len(whole))
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
            # Weights lie in the middle of large files.
            edge = min(len(data), 8000)
            at = (
                rng.randrange(8, edge) if rng.random() < 0.5 else len(data) - rng.randrange(4, edge)
            )
            at = max(8, min(at, len(data) - 4))
            if rng.random() < 0.5:
                data[at] = rng.randrange(256)
            else:
                at -= at % 4
                data[at : at + 4] = rng.choice(WORDS).to_bytes(4, "little")
        yield bytes(data[: rng.randrange(len(data)) if rng.random() < 0.1 else None])


def check(data: bytes) -> bool:
    """Whether the model was taken; figures must then be those of a memory."""
    started = time.process_time()
    try:
        model = parse(data)
        tap_graph(model)
        for target in TARGETS:
            found = memory_map(model, target)
            arena = found.arena
            assert 0 <= arena.head < 1 << 31
            assert 0 < arena.tail <= arena.used <= arena.minimum + 15
            assert arena.lower_bound >= 0
            assert all(p.size >= p.bytes >= 0 for p in found if p.home == "arena")
            assert 0 <= found.flash.weights <= found.flash.total == len(data)
        prices(model, TARGETS[0])
    except LayertapError as error:
        assert error.message
        assert isinstance(error, SourceError), error
        return False
    finally:
        assert time.process_time() - started < 1
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [("looping", 1000), ("tflm/hello_world_int8", 500), ("tflm/mnist_lstm_int8", 500)],
)
def test_2000_mutations(name: str, count: int, request: pytest.FixtureRequest) -> None:
    if name == "looping":
        whole = looping()
    else:
        shared: Path = request.getfixturevalue("shared")
        whole = (shared / "models" / f"{name}.tflite").read_bytes()
    assert check(whole)
    taken = sum(check(data) for data in mutants(whole, count))
    assert 0 < taken < count


def test_some_mutations() -> None:
    whole = looping()
    assert check(whole)
    assert 0 < sum(check(data) for data in mutants(whole, 60)) < 60


def test_every_truncation() -> None:
    whole = looping()
    for size in range(0, len(whole), 7):
        check(whole[:size])


def model(*shapes: tuple[int, ...], op: str = "RELU", **more: object) -> TfliteModel:
    tensors = [TensorSpec(f"t{i}", shape) for i, shape in enumerate(shapes)]
    steps = [OperatorSpec(op, [i], [i + 1]) for i in range(len(shapes) - 1)]
    graph = SubgraphSpec(tensors, [0], [len(shapes) - 1], steps)
    return parse(write_tflite(graph, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        (((1, -1), (1, 4)), r"t0"),
        (((1, 4), (1, -1)), r"t1"),
        (((1, 4), (1, 1 << 30)), r"t1.*bytes"),
        (((1, 1 << 28), (1, 1 << 28), (1, 1 << 28)), r"bytes"),
    ],
)
def test_sizes_that_no_arena_has(shapes: tuple[tuple[int, ...], ...], what: str) -> None:
    for target in TARGETS:
        with pytest.raises(CorruptModel, match=what):
            memory_map(model(*shapes), target)


def test_a_layout_of_the_wrong_length() -> None:
    short = np.array([1, 1, 2, 0], "<i4").tobytes()
    other = np.array([1, 1, 3, 0, 16, 32], "<i4").tobytes()
    for layout, what in ((short, "16 bytes, 2 tensors need 20"), (other, "for 3 tensors")):
        bad = model((1, 4), (1, 4), metadata={OFFLINE_PLAN: layout})
        with pytest.raises(CorruptModel, match=what):
            memory_map(bad, TARGETS[0])
        with pytest.raises(CorruptModel, match=what):
            tapped(bad, [0])
