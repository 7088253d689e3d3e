"""Which axis counts samples in files of a fixed batch, in both runtimes; NumPy knows the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import layertap
from layertap.runtimes.worker.axes import ALIKE, NO_AXIS, NOT_PROVEN
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite

pytestmark = pytest.mark.slow  # starts a worker per test

BATCH = 4
KERNEL = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


def dense_and_time_major() -> bytes:
    """A dense layer; a sequence that is as long as the batch, and turned to time first; products of
    samples with one another."""
    tensors = [
        TensorSpec("x", (BATCH, 3)),
        TensorSpec("sequence", (BATCH, BATCH, 3)),
        TensorSpec("kernel", (5, 3), data=KERNEL),
        TensorSpec("dense", (BATCH, 5)),
        TensorSpec("order", (3,), "int32", data=np.array([1, 0, 2], np.int32)),
        TensorSpec("time_major", (BATCH, BATCH, 3)),
        TensorSpec("steps", (BATCH, BATCH, 3)),
        TensorSpec("products", (BATCH, BATCH)),
        TensorSpec("axes", (2,), "int32", data=np.array([0, 1], np.int32)),
        TensorSpec("total", (3,)),
    ]
    operators = [
        OperatorSpec("FULLY_CONNECTED", [0, 2, -1], [3]),
        OperatorSpec("TRANSPOSE", [1, 4], [5]),
        OperatorSpec("NEG", [5], [6]),
        OperatorSpec("FULLY_CONNECTED", [0, 0, -1], [7]),
        OperatorSpec("SUM", [1, 8], [9]),
    ]
    return write_tflite(SubgraphSpec(tensors, [0, 1], [3, 6, 7, 9], operators))


def feed(samples: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(samples, 3)).astype(np.float32),
        "sequence": rng.normal(size=(samples, BATCH, 3)).astype(np.float32),
    }


@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_each_tap_has_rows_as_is_proven(runtime: str) -> None:
    x = feed(8)
    with layertap.open(dense_and_time_major(), runtime=runtime) as model:
        run = model.capture(x, keep_inputs=True)
    np.testing.assert_allclose(run["dense"].raw, x["x"] @ KERNEL.T, rtol=1e-5)
    np.testing.assert_array_equal(run["x"].raw, x["x"])
    # Moved to the front: sample after sample.
    np.testing.assert_array_equal(run["time_major"].raw, x["sequence"])
    np.testing.assert_array_equal(run["steps"].raw, -x["sequence"])
    halves = [x["x"][:4] @ x["x"][:4].T, x["x"][4:] @ x["x"][4:].T]
    np.testing.assert_allclose(run["products"].raw, halves, rtol=1e-5)
    totals = x["sequence"].reshape(2, 16, 3).sum(1)
    np.testing.assert_allclose(run["total"].raw, totals, rtol=1e-4)
    assert run.provenance["sample_axis"] == {
        "x": "given",
        "sequence": "given",
        "dense": "a further run, in another order",
        "time_major": "a further run, in another order",
        "steps": "a further run, in another order",
        "products": NOT_PROVEN,
        "total": NO_AXIS,
    }
    assert {name: (c.tap.per, c.tap.batch_axis) for name, c in run.items()} == {
        "x": ("sample", 0),
        "sequence": ("sample", 0),
        "dense": ("sample", 0),
        "time_major": ("sample", 1),
        "steps": ("sample", 1),
        "products": ("batch", 0),
        "total": ("batch", 0),
    }


def test_samples_that_are_alike_are_told_apart_by_others() -> None:
    x = {name: np.zeros_like(value) for name, value in feed(4).items()}
    with layertap.open(dense_and_time_major(), runtime="litert") as model:
        run = model.capture(x)
        assert run["dense"].tap.per == "sample"
        assert (run["steps"].tap.per, run["steps"].tap.batch_axis) == ("sample", 1)
        assert run["products"].raw.shape == (1, 4, 4)
        assert run["dense"].raw.shape == (4, 5)
        assert not run["dense"].raw.any()


def test_what_is_the_same_for_all_samples_has_no_samples() -> None:
    tensors = [
        TensorSpec("x", (BATCH, 3), "int32"),
        TensorSpec("zero", (1,), "int32", data=np.zeros(1, np.int32)),
        TensorSpec("nothing", (BATCH, 3), "int32"),
    ]
    data = write_tflite(SubgraphSpec(tensors, [0], [2], [OperatorSpec("MUL", [0, 1], [2])]))
    with layertap.open(data, runtime="litert") as model:
        x = np.arange(12, dtype=np.int32).reshape(4, 3)
        run = model.capture(x)
        assert run["nothing"].raw.shape == (1, 4, 3)
        assert run.provenance["sample_axis"] == {"nothing": ALIKE}
        known = model.capture(x, batch_axis={"nothing": 0})
        assert known["nothing"].raw.shape == (4, 3)


def test_only_what_is_read_is_proven_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with layertap.open(dense_and_time_major(), runtime="litert") as model:
        worker = model.session.worker  # type: ignore[attr-defined]
        runs: list[tuple[int, list[int]]] = []
        execute = worker.execute

        def counted(slot: int, inputs: Any, count: int, outputs: list[int]) -> Any:
            runs.append((count, list(outputs)))
            return execute(slot, inputs, count, outputs)

        monkeypatch.setattr(worker, "execute", counted)
        for seed in range(3):
            model.capture(feed(4, seed), taps="dense")
    # The batch and the same in another order in one go, then the captures.
    assert runs == [(2, [3]), (1, [3]), (1, [3]), (1, [3])]


def stateful() -> bytes:
    """An SVDF layer of two time steps: its state holds what came before."""
    tensors = [
        TensorSpec("x", (2, 2)),
        TensorSpec("feature", (2, 2), data=np.eye(2, dtype=np.float32)),
        TensorSpec("time", (2, 2), data=np.ones((2, 2), np.float32)),
        TensorSpec("state", (2, 4), variable=True),
        TensorSpec("y", (2, 2)),
    ]
    svdf = OperatorSpec("SVDF", [0, 1, 2, -1, 3], [4], {0: 1})
    return write_tflite(SubgraphSpec(tensors, [0], [4], [svdf]))


def test_what_is_proven_leaves_the_state_as_it_was() -> None:
    x = np.array([[1, 2], [10, 20], [100, 200], [1000, 2000]], np.float32)
    alone = Interpreter(model_content=stateful())
    alone.allocate_tensors()
    by_hand = []
    for pair in (x[:2], x[2:]):
        alone.set_tensor(0, pair)
        alone.invoke()
        by_hand.append(alone.get_tensor(4))
    with layertap.open(stateful(), "litert", keep_state=True) as model:
        run = model.capture(x)
    np.testing.assert_array_equal(run["y"].raw, np.concatenate(by_hand))
    assert by_hand[1].tolist() == [[101, 202], [1010, 2020]]


def test_passes_in_a_given_arena_are_proven_too() -> None:
    length = 6
    tensors = [TensorSpec(f"t{i}", (BATCH, 64)) for i in range(length + 1)]
    chain = [OperatorSpec("NEG", [i], [i + 1]) for i in range(length)]
    data = write_tflite(SubgraphSpec(tensors, [0], [length], chain))
    x = np.random.default_rng(0).normal(size=(BATCH, 64)).astype(np.float32)
    with layertap.open(data, runtime="tflm", arena=6000) as model:
        assert len(model.plan(None, x).passes) > 1
        run = model.capture(x)
    for i in range(1, length + 1):
        assert run[f"t{i}"].tap.per == "sample"
        np.testing.assert_array_equal(run[f"t{i}"].raw, x * (-1) ** i)
