from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from layertap.arena.buffers import Buffer, collisions
from layertap.arena.mapping import memory_map
from layertap.arena.memory_map import MemoryMap
from layertap.arena.optimize import Layout, best_layout
from layertap.arena.target import load_target
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import parse
from layertap.tflite.relayout import with_layout

pytestmark = pytest.mark.slow  # solves layouts

HOST = load_target("host")


def dense(sizes: Sequence[int], outputs: Sequence[int]) -> bytes:
    """A chain of dense layers of so many float32 values."""
    tensors = [TensorSpec(f"t{i}", (1, size)) for i, size in enumerate(sizes)]
    operators = []
    for i, (size, previous) in enumerate(zip(sizes[1:], sizes, strict=False)):
        weights = np.full((size, previous), 0.5, np.float32)
        tensors.append(TensorSpec(f"w{i}", weights.shape, data=weights))
        operators.append(OperatorSpec("FULLY_CONNECTED", [i, len(tensors) - 1, -1], [i + 1]))
    return write_tflite(SubgraphSpec(tensors, [0], list(outputs), operators))


def laid_out(data: bytes, **options: Any) -> tuple[Layout, MemoryMap]:
    """The layout, and the map of the model with it: what it promises is what it gives."""
    model = parse(data)
    layout = best_layout(model, memory_map(model, HOST), **options)
    after = memory_map(parse(with_layout(data, layout.offsets)), HOST)
    assert after.arena.head == layout.head <= layout.greedy
    assert layout.bound <= layout.head
    assert layout.bound <= layout.bound_apart
    return layout, after


def overlapping(memory: MemoryMap) -> list[set[str]]:
    """Names of those that share bytes while both are alive."""
    planned = memory.planned()
    buffers = [Buffer(p.size, *(p.alive or (0, 0))) for p in planned]
    pairs = collisions(buffers, [p.offset or 0 for p in planned])
    return [{planned[i].name, planned[j].name} for i, j in pairs]


def test_a_model_that_greedy_lays_out_badly() -> None:
    layout, after = laid_out(dense([36, 32, 28, 36], [2, 3]), sharing="none")
    assert (layout.greedy, layout.head, layout.bound) == (384, 272, 272)
    assert layout.optimal
    assert layout.gap == 0
    assert layout.shared == ()
    assert overlapping(after) == []


def test_results_in_place() -> None:
    tensors = [TensorSpec(f"t{i}", (1, 16)) for i in range(4)]
    names = ("RELU", "NEG", "ABS")
    operators = [OperatorSpec(name, [i], [i + 1]) for i, name in enumerate(names)]
    data = write_tflite(SubgraphSpec(tensors, [0], [3], operators))
    layout, after = laid_out(data)
    assert (layout.greedy, layout.head) == (128, 64)
    assert (layout.bound_apart, layout.bound) == (128, 64)
    assert [(shared.op, shared.input, shared.output) for shared in layout.shared] == [
        ("RELU", "t0", "t1"),
        ("NEG", "t1", "t2"),
        ("ABS", "t2", "t3"),
    ]
    assert {shared.distance for shared in layout.shared} == {0}
    assert overlapping(after) == [{"t0", "t1"}, {"t1", "t2"}, {"t2", "t3"}]
    assert laid_out(data, sharing="none")[0].head == 128


def test_nothing_is_shared_that_does_not_help() -> None:
    """The dense layers need more than the one operator that could work in place."""
    tensors = [TensorSpec("x", (1, 4)), TensorSpec("y", (1, 4)), TensorSpec("z", (1, 64))]
    tensors.append(TensorSpec("w", (64, 4), data=np.ones((64, 4), np.float32)))
    operators = [OperatorSpec("RELU", [0], [1]), OperatorSpec("FULLY_CONNECTED", [1, 3, -1], [2])]
    layout, _ = laid_out(write_tflite(SubgraphSpec(tensors, [0], [2], operators)))
    assert layout.shared == ()
    assert layout.head == layout.greedy == layout.bound


def pointwise() -> bytes:
    """A 1x1 convolution that doubles the channels."""
    weights = np.ones((8, 1, 1, 4), np.float32)
    tensors = [TensorSpec("x", (1, 16, 16, 4)), TensorSpec("y", (1, 16, 16, 8))]
    tensors += [TensorSpec("w", weights.shape, data=weights)]
    tensors += [TensorSpec("b", (8,), data=np.ones(8, np.float32))]
    operator = OperatorSpec("CONV_2D", [0, 2, 3], [1], {1: 1, 2: 1, 4: 1, 5: 1})
    return write_tflite(SubgraphSpec(tensors, [0], [1], [operator]))


def test_a_result_that_reaches_into_its_operand() -> None:
    data = pointwise()
    assert laid_out(data)[0].head == 4096 + 8192
    layout, _ = laid_out(data, sharing="overlapping")
    (shared,) = layout.shared
    # The last of 256 pixels ends 256 * 32 bytes on and is read from byte 255 * 16.
    assert shared.distance == 256 * 32 - 255 * 16
    assert layout.head == layout.bound == shared.distance + 4096
    assert {"cmsis_nn", "esp_nn"} <= set(shared.vendors)


def test_kernels_of_a_vendor_share_nothing() -> None:
    layout, _ = laid_out(pointwise(), sharing="overlapping", kernels="cmsis_nn")
    assert layout.shared == ()
    assert layout.bound == layout.head == layout.greedy


def test_the_same_model_gives_the_same_layout() -> None:
    rng = np.random.default_rng(3)
    sizes = [4 * int(n) for n in rng.integers(1, 40, 30)]
    data = dense(sizes, sorted({*rng.integers(1, 30, 8).tolist(), 29}))
    first, _ = laid_out(data)
    second, _ = laid_out(data)
    assert first == second
    assert first.head < first.greedy


def test_entries_that_the_interpreter_mistakes_for_variables_of_a_subgraph_stay_free() -> None:
    """It looks up the variables of every subgraph by their index within it; an offset at that
    entry, which is another tensor's, would leave them without memory."""
    main = SubgraphSpec(
        [TensorSpec(f"t{i}", (1, 16)) for i in range(4)],
        [0],
        [3],
        [
            OperatorSpec("CALL_ONCE", [], [], {0: 1}),
            *(OperatorSpec("RELU", [i], [i + 1]) for i in range(3)),
        ],
    )
    other = [TensorSpec("a", (1, 16)), TensorSpec("b", (1, 16), variable=True)]
    data = write_tflite(main, SubgraphSpec(other, [], [], []))
    layout, _ = laid_out(data)
    assert layout.offsets[1] is None
    assert layout.offsets[5] is None
    assert None not in (layout.offsets[0], layout.offsets[2], layout.offsets[3])


def test_scratch_buffers_find_room() -> None:
    """MEAN asks for scratch buffers, which only the interpreter's planner places."""
    scale = {"scales": [0.5], "zero_points": [0]}
    tensors = [TensorSpec("x", (1, 8, 8, 4), "int8", **scale)]
    tensors += [
        TensorSpec("y", (1, 8, 8, 4), "int8", **scale),
        TensorSpec("z", (1, 4), "int8", **scale),
    ]
    tensors += [TensorSpec("axes", (2,), "int32", np.array([1, 2], np.int32))]
    operators = [OperatorSpec("RELU", [0], [1]), OperatorSpec("MEAN", [1, 3], [2])]
    data = write_tflite(SubgraphSpec(tensors, [0], [2], operators))
    layout, after = laid_out(data)
    assert any(p.index is None for p in after.planned())
    assert layout.head < layout.greedy


def test_too_much_at_once_is_left_to_greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layertap.arena.optimize.MOST_PAIRS", 2)
    layout, _ = laid_out(dense([36, 32, 28, 36], [2, 3]))
    assert layout.solver == "greedy"
    assert set(layout.offsets) == {None}
    assert (layout.head, layout.bound) == (384, 272)


def test_the_solver_closes_what_first_fit_leaves_open() -> None:
    from layertap.arena.packing import Problem, pack
    from layertap.arena.solver import improved

    rng = np.random.default_rng(1)
    births = np.arange(100)
    sizes, lives = rng.integers(1, 200, 100) * 16, 1 + rng.exponential(10, 100).astype(int)
    buffers = [
        Buffer(int(size), int(birth), min(100, int(birth + life)))
        for size, birth, life in zip(sizes, births, lives, strict=True)
    ]
    problem = Problem(buffers)
    rough = pack(problem, tries=0)
    better = improved(problem, rough, effort=5)
    assert rough.head > better.head == better.bound
    assert collisions(buffers, better.offsets) == []
    assert improved(problem, rough, effort=5) == better
