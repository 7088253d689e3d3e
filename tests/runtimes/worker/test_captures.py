"""Captures of many samples: failures in the middle, threads, interrupts, blocks."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layertap
from layertap.errors import RuntimeFailure
from layertap.testing.tflite import (
    OperatorSpec,
    SignatureSpec,
    SubgraphSpec,
    TensorSpec,
    write_tflite,
)

pytestmark = pytest.mark.slow  # starts a worker per test

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
BOTH = pytest.mark.parametrize("runtime", ["litert", "tflm"])


def lookup() -> bytes:
    """A row of a table by its number, and twice that; a number beyond the table is an error."""
    tensors = [
        TensorSpec("number", (1,), "int32"),
        TensorSpec("table", (4, 3), data=ROWS),
        TensorSpec("row", (1, 3)),
        TensorSpec("twice", (1, 3)),
    ]
    operators = [OperatorSpec("GATHER", [1, 0], [2]), OperatorSpec("ADD", [2, 2], [3])]
    return write_tflite(SubgraphSpec(tensors, [0], [3], operators))


def negation(size: int = 3, batched: bool = True) -> bytes:
    shape = (1, size) if batched else (size,)
    tensors = [TensorSpec("x", shape), TensorSpec("h", shape), TensorSpec("y", shape)]
    if not batched:
        # Inputs of different lengths share no batch axis.
        tensors += [TensorSpec("other", (size + 1,))]
    operators = [OperatorSpec("NEG", [0], [1]), OperatorSpec("NEG", [1], [2])]
    return write_tflite(
        SubgraphSpec(tensors, [0] if batched else [0, 3], [2], operators),
        signatures=[SignatureSpec("main", {"x": 0}, {"y": 2})] if batched else [],
    )


def test_a_failure_names_its_sample_and_what_came_before_stays(tmp_path: Path) -> None:
    numbers = np.arange(100, dtype=np.int32) % 4
    numbers[70] = 99
    with layertap.open(lookup(), "litert", kernels="builtin") as model:
        for size in (None, 32):
            with pytest.raises(RuntimeFailure, match="at sample 70: ") as caught:
                model.capture(numbers, to=tmp_path / f"run{size}", batch_size=size)
            assert caught.value.__cause__ is not None
        assert model.capture(numbers[:70])["row"].raw.shape == (70, 3)
    for size in (None, 32):
        run = layertap.load(tmp_path / f"run{size}")
        assert (run.samples, run.complete) == (70, False)
        np.testing.assert_array_equal(run["row"].raw, ROWS[numbers[:70]])
        np.testing.assert_array_equal(run["twice"].raw, ROWS[numbers[:70]] * 2)


@BOTH
def test_a_worker_that_dies_names_the_sample(runtime: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50_000, 3)).astype(np.float32)
    batches = 0
    with layertap.open(negation(), runtime) as model:
        worker = model.session.worker  # type: ignore[attr-defined]

        def kill(progress: Any) -> None:
            nonlocal batches
            batches += 1
            if batches == 2:
                threading.Timer(0.005, os.kill, (worker.pid, signal.SIGKILL)).start()

        with pytest.raises(RuntimeFailure, match=r"at sample \d+: .*SIGKILL") as caught:
            model.capture(x, to=tmp_path / "run", batch_size=1000, progress=kill)
        run = layertap.load(tmp_path / "run")
        assert f"at sample {run.samples}: " in caught.value.message
        assert run.samples >= 2000
        np.testing.assert_array_equal(run["h"].raw, -x[: run.samples])
        again = model.capture(x, to=tmp_path / "run", batch_size=1000, resume=True)
    np.testing.assert_array_equal(again["h"].raw, -x)


@BOTH
def test_each_thread_gets_its_own_values(runtime: str) -> None:
    wrong: list[int] = []
    with layertap.open(negation(), runtime) as model:

        def capture(first: int) -> None:
            for i in range(first, first + 40):
                x = np.full((1 + i % 3, 3), i, np.float32)
                run = model.capture(x, taps="h" if i % 2 else "y")
                value = run["h"].raw if i % 2 else run["y"].raw
                if not np.array_equal(value, -x if i % 2 else x):
                    wrong.append(i)

        threads = [threading.Thread(target=capture, args=(1000 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


@BOTH
@pytest.mark.parametrize("keep_state", [False, True])
def test_interrupts_at_any_moment_leave_a_session_that_can_be_used(
    runtime: str, keep_state: bool
) -> None:
    rng = random.Random(0)
    x = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32)
    interrupted = 0
    with layertap.open(negation(), runtime, keep_state=keep_state) as model:
        for i in range(25):
            wait = rng.random() * 0.03 * (1 + i % 3)
            interrupt = threading.Timer(wait, os.kill, (os.getpid(), signal.SIGINT))
            try:
                interrupt.start()
                while interrupt.is_alive():
                    np.testing.assert_array_equal(model.capture(x, taps="h")["h"].raw, -x)
                interrupt.join()
            except KeyboardInterrupt:
                interrupted += 1
            np.testing.assert_array_equal(model.capture(x[:2], taps="y")["y"].raw, x[:2])
    assert interrupted > 12


@BOTH
def test_more_than_one_block(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layertap.runtimes.worker.process.LIMIT", 1 << 20)
    x = np.random.default_rng(0).normal(size=(300, 2000)).astype(np.float32)
    with layertap.open(negation(2000), runtime) as model:
        for _ in range(2):
            run = model.capture(x, keep_inputs=True)
            np.testing.assert_array_equal(run["x"].raw, x)
            np.testing.assert_array_equal(run["h"].raw, -x)
            np.testing.assert_array_equal(run["y"].raw, x)


@BOTH
def test_samples_without_a_batch_axis_come_many_at_once(runtime: str) -> None:
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    other = np.zeros((500, 4), np.float32)
    with layertap.open(negation(3, batched=False), runtime) as model:
        run = model.capture((x, other), keep_inputs=True)
        np.testing.assert_array_equal(run["h"].raw, -x)
        np.testing.assert_array_equal(run["x"].raw, x)
        alone = model.capture((x[0], other[0]))
        np.testing.assert_array_equal(alone["h"].raw, -x[:1])


def test_the_same_taps_again_load_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((2, 3), np.float32)
    with layertap.open(negation(), "litert") as model:
        worker = model.session.worker  # type: ignore[attr-defined]
        loads: list[int] = []
        load = worker.load

        def counted(slot: int, data: bytes, options: dict[str, Any]) -> None:
            loads.append(slot)
            load(slot, data, options)

        monkeypatch.setattr(worker, "load", counted)
        for taps in ("h", "h", None, None, "h"):
            model.capture(x, taps=taps)
    assert len(loads) == 3


def test_nothing_is_started_for_a_look() -> None:
    with layertap.open(negation(), "litert") as model:
        assert model.plan(None, np.ones((2, 3), np.float32)).samples == 2
        assert model.session.worker.pid is None  # type: ignore[attr-defined]
