"""TensorFlow Lite Micro: the proof on real models, arenas, state, refusals and crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import layertap
from layertap.core.graph import COMPUTED
from layertap.errors import (
    ArenaExceeded,
    CorruptModel,
    FeedError,
    MissingRuntime,
    RunError,
    RuntimeFailure,
    SourceError,
    Untappable,
)
from layertap.runtimes.registry import Runtime
from layertap.runtimes.tflm import TflmSession
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.testing.tflite_cases import known_model
from layertap.tflite.edit import OFFLINE_PLAN

pytestmark = pytest.mark.slow  # starts a worker per test
# The oracle: the interpreter itself, told to preserve all tensors. In a process of its own, since
# it ends the process when something is wrong.
PRESERVED = """
import sys, numpy as np
from tflite_micro import runtime
model, taps, feed, result = sys.argv[1:]
feed = np.load(feed)
config = runtime.InterpreterConfig.kPreserveAllTensors
interpreter = runtime.Interpreter.from_file(
    model, arena_size=64 << 20, intrepreter_config=config)
plain = runtime.Interpreter.from_file(model, arena_size=64 << 20)
for each in (interpreter, plain):
    for position in range(len(feed.files)):
        each.set_input(feed[str(position)], position)
    each.invoke()
values = {i: interpreter.GetTensor(int(i), 0)["tensor_data"] for i in taps.split(",")}
for position in range(int(feed["0"].size > 0)):
    values[f"output{position}"] = plain.get_output(position)
np.savez(result, **values)
"""


def feed_of(model: layertap.Model, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    feed = {}
    for spec in model.session.inputs:
        assert spec.shape is not None
        values = rng.normal(size=spec.shape)
        feed[spec.name] = (
            values.astype(np.float32)
            if spec.dtype == "float32"
            else np.clip(values * 50, -120, 120).astype(spec.dtype)
        )
    return feed


def preserved(
    path: Path, model: layertap.Model, feed: Mapping[str, np.ndarray], work: Path
) -> Mapping[str, np.ndarray]:
    indices = [t.index for t in model.graph if t.kind in COMPUTED and not t.untappable]
    fed, result = work / "feed.npz", work / "result.npz"
    np.savez(fed, **{str(i): value for i, value in enumerate(feed.values())})
    arguments = [str(path), ",".join(map(str, indices)), str(fed), str(result)]
    subprocess.run(
        [sys.executable, "-c", PRESERVED, *arguments], check=True, capture_output=True, timeout=120
    )
    return np.load(result)


@pytest.mark.slow
def test_every_tensor_of_every_shared_model_is_what_the_interpreter_preserves(
    shared: Path, tmp_path: Path
) -> None:
    compared = 0
    for path in sorted(shared.glob("models/*/*.tflite")):
        if path.stem == "kws_float":
            continue  # float activations with int8 weights: the micro interpreter refuses them
        with layertap.open(path, runtime="tflm") as model:
            feed = feed_of(model)
            expected = preserved(path, model, feed, tmp_path)
            run = model.capture(feed)
            alone = model.capture(feed, taps=[t.name for t in model.graph.outputs])
            for name, capture in run.items():
                value = expected[str(capture.tap.index)]
                assert capture.raw.dtype == value.dtype, (path.name, name)
                np.testing.assert_array_equal(capture.raw, value, err_msg=f"{path.name}: {name}")
                compared += 1
            output = model.graph.outputs[0].name
            np.testing.assert_array_equal(run[output].raw, expected["output0"])
            np.testing.assert_array_equal(alone[output].raw, expected["output0"])
    assert compared > 100


def test_a_layout_that_does_not_fit_the_model_is_refused_on_opening() -> None:
    tensors = [TensorSpec("x", (1, 4)), TensorSpec("y", (1, 4))]
    graph = SubgraphSpec(tensors, [0], [1], [OperatorSpec("RELU", [0], [1])])
    for numbers in ((1, 1, 2, 0), (1, 1, 3, 0, 16, 32)):
        layout = np.array(numbers, "<i4").tobytes()
        with pytest.raises(CorruptModel, match="memory layout"):
            layertap.open(write_tflite(graph, metadata={OFFLINE_PLAN: layout}), runtime="tflm")


@pytest.mark.slow
def test_hybrid_model_is_refused_with_the_native_message(shared: Path) -> None:
    path = shared / "models" / "mlperf-tiny" / "kws_float.tflite"
    with layertap.open(path, runtime="tflm") as model:
        with pytest.raises(RuntimeFailure, match="Hybrid models are not supported") as caught:
            model.capture(feed_of(model))
        assert "CONV_2D" in str(caught.value.__cause__)


@pytest.mark.slow
def test_person_detector_tells_people_apart(shared: Path) -> None:
    from PIL import Image

    scores = {}
    with layertap.open(shared / "models/tflm/person_detect.tflite", runtime="tflm") as model:
        for name in ("person", "no_person"):
            with Image.open(shared / "inputs" / f"{name}.bmp") as image:
                pixels = np.asarray(image.convert("L"), np.int16)
            x = (pixels - 128).astype(np.int8)[None, ..., None]
            output = model.graph.outputs[0].name
            scores[name] = model.capture(x, taps=output)[output].raw[0]
    assert scores["person"][1] > scores["no_person"][1] + 50


@pytest.mark.slow
def test_state_is_reset_between_samples_unless_kept(shared: Path) -> None:
    path = shared / "models" / "tflm" / "mnist_lstm_int8.tflite"
    x = np.random.default_rng(0).integers(-128, 127, (3, 28, 28)).astype(np.int8)
    with layertap.open(path, runtime="tflm") as model:
        together = model.capture(x)
        alone = model.capture(x[1:2])
        again = model.capture(np.repeat(x[:1], 3, axis=0))
    for name, capture in together.items():
        np.testing.assert_array_equal(capture.raw[1:2], alone[name].raw)
        np.testing.assert_array_equal(again[name].raw[0], again[name].raw[2])
    with layertap.open(path, runtime="tflm", keep_state=True) as model:
        kept = model.capture(x)
        assert model.session.provenance["keep_state"] is True
        afresh = model.capture(x)
    state = [tap.name for tap in kept.taps if tap.kind == "state"]
    assert state
    assert any((kept[name].raw[1] != together[name].raw[1]).any() for name in state)
    for name in kept:
        np.testing.assert_array_equal(kept[name].raw[0], together[name].raw[0])
        np.testing.assert_array_equal(kept[name].raw, afresh[name].raw)


def resource_model() -> bytes:
    """``new = x + v``; then v becomes new; v starts as 5."""
    x = {"shape": (1, 2)}
    main = SubgraphSpec(
        [
            TensorSpec("x", **x),
            TensorSpec("handle", (), "resource"),
            TensorSpec("old", **x),
            TensorSpec("new", **x),
        ],
        [0],
        [3],
        [
            OperatorSpec("CALL_ONCE", [], [], {0: 1}),
            OperatorSpec("VAR_HANDLE", [], [1], {0: "", 1: "v"}),
            OperatorSpec("READ_VARIABLE", [1], [2]),
            OperatorSpec("ADD", [0, 2], [3]),
            OperatorSpec("ASSIGN_VARIABLE", [1, 3], []),
        ],
    )
    start = SubgraphSpec(
        [
            TensorSpec("handle", (), "resource"),
            TensorSpec("start", **x, data=np.full((1, 2), 5, np.float32)),
        ],
        [],
        [],
        [
            OperatorSpec("VAR_HANDLE", [], [0], {0: "", 1: "v"}),
            OperatorSpec("ASSIGN_VARIABLE", [0, 1], []),
        ],
    )
    return write_tflite(main, start)


@pytest.mark.parametrize(
    ("keep_state", "expected"), [(False, [[5, 5], [5, 5]]), (True, [[5, 5], [6, 7]])]
)
def test_resource_variables(keep_state: bool, expected: list[list[int]]) -> None:
    x = np.array([[1, 2], [3, 4]], np.float32)
    with layertap.open(resource_model(), runtime="tflm", keep_state=keep_state) as model:
        run = model.capture(x)
        np.testing.assert_array_equal(run["old"].raw, expected)
        np.testing.assert_array_equal(run["new"].raw, np.add(expected, x))
        with pytest.raises(Untappable, match="resource"):
            model.capture(x, taps="handle")


def test_a_ready_memory_layout_does_not_corrupt_a_tap() -> None:
    """All activations lie at offset 0 or 64 in this layout, so each is overwritten soon."""
    tensors = [TensorSpec(f"t{i}", (1, 8)) for i in range(5)]
    tensors.append(TensorSpec("one", (8,), data=np.ones(8, np.float32)))
    operators = [OperatorSpec("ADD", [i, 5], [i + 1]) for i in range(4)]
    layout = np.array([1, 1, 6, 0, 64, 0, 64, 0, -1], "<i4").tobytes()
    main = SubgraphSpec(tensors, [0], [4], operators)
    data = write_tflite(main, metadata={OFFLINE_PLAN: layout})
    x = np.arange(8, dtype=np.float32)[None]
    with layertap.open(data, runtime="tflm") as model:
        run = model.capture(x)
    for i in range(1, 5):
        np.testing.assert_array_equal(run[f"t{i}"].raw, x + i)


def test_batches_of_the_models_own_size() -> None:
    known = known_model(batch=4)
    x = np.concatenate([known.feed["x"]] * 3)
    with layertap.open(known.data, runtime="tflm") as model:
        run = model.capture(x)
        np.testing.assert_array_equal(run["dense"].raw, np.tile(known.oracle["dense"], (3, 1)))
        with pytest.raises(FeedError, match="multiple of 4"):
            model.capture(x[:6])


def test_scalars_have_no_batch() -> None:
    tensors = [TensorSpec(name, ()) for name in "abc"]
    data = write_tflite(SubgraphSpec(tensors, [0, 1], [2], [OperatorSpec("ADD", [0, 1], [2])]))
    with layertap.open(data, runtime="tflm") as model:
        run = model.capture({"a": np.float32(2), "b": np.float32(3)})
    assert run["c"].raw.tolist() == [5]


def test_a_given_arena() -> None:
    known = known_model()
    with layertap.open(known.data, runtime="tflm", arena="64KiB") as model:
        model.capture(known.feed)
        assert model.session.provenance["arena"] == 65536
    for arena in (100, 1500):
        with layertap.open(known.data, runtime="tflm", arena=arena) as model:
            for _ in range(2):
                with pytest.raises(ArenaExceeded, match=f"the {arena:,} there are") as caught:
                    model.capture(known.feed)
                assert "give more" in caught.value.hint
    for bad in (0, -1, "lots"):
        with pytest.raises(SourceError):
            layertap.open(known.data, runtime="tflm", arena=bad)


def test_values_do_not_depend_on_the_arena() -> None:
    known = known_model()
    for arena in (8_000, "1MiB", None):
        with layertap.open(known.data, runtime="tflm", arena=arena) as model:
            for name, capture in model.capture(known.feed).items():
                np.testing.assert_array_equal(capture.raw, known.oracle[name])


@pytest.mark.parametrize(
    ("operator", "said"), [("my_op", "my_op"), ("STABLEHLO_CBRT", "STABLEHLO_CBRT")]
)
def test_an_operator_that_the_wheel_lacks(operator: str, said: str) -> None:
    tensors = [TensorSpec("x", (1, 2)), TensorSpec("y", (1, 2))]
    data = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec(operator, [0], [1])]))
    with layertap.open(data, runtime="tflm") as model:
        with pytest.raises(RuntimeFailure, match=said) as caught:
            model.capture(np.ones((1, 2), np.float32))
        assert ('runtime="litert"' in caught.value.hint) == (operator != "my_op")


def test_a_crashing_model_leaves_the_caller_alive() -> None:
    """An operator without its tensors: the interpreter reads through a null pointer."""
    tensors = [TensorSpec("x", (1, 2)), TensorSpec("y", (1, 2))]
    bad = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("ADD", [0, -1], [1])]))
    with layertap.open(bad, runtime="tflm") as model:
        for _ in range(2):
            with pytest.raises(RuntimeFailure):
                model.capture(np.ones((1, 2), np.float32))
    known = known_model()
    with layertap.open(known.data, runtime="tflm") as model:
        model.capture(known.feed)


def test_a_lost_worker_is_replaced_unless_it_held_state() -> None:
    known = known_model()
    for keep_state in (False, True):
        with layertap.open(known.data, runtime="tflm", keep_state=keep_state) as model:
            assert isinstance(model.session, TflmSession)
            taps = list(model.graph.outputs)
            run_pass = model.session.prepare(taps)
            got: list[np.ndarray] = []
            run_pass(known.feed, lambda _, value, got=got: got.append(value))
            assert model.session.worker.pid is not None
            os.kill(model.session.worker.pid, signal.SIGKILL)
            os.waitid(os.P_PID, model.session.worker.pid, os.WEXITED | os.WNOWAIT)
            if keep_state:
                with pytest.raises(RuntimeFailure, match="worker was lost"):
                    run_pass(known.feed, lambda *_: None)
            else:
                run_pass(known.feed, lambda _, value, got=got: got.append(value))
                np.testing.assert_array_equal(got[0], got[2])


def test_open_sizes_that_the_interpreter_takes_for_wrong_ones_are_refused_on_opening() -> None:
    """As in a dilated convolution: pixels move into the batch, four times as many."""

    def moved(batch: int, signature: list[int] | None) -> bytes:
        x, y = (1, 4, 4, 1), (batch, 2, 2, 1)
        tensors = [
            TensorSpec("x", x, signature=None if signature is None else [-1, *x[1:]]),
            TensorSpec("block", (2,), "int32", data=np.array([2, 2], np.int32)),
            TensorSpec("pads", (2, 2), "int32", data=np.zeros((2, 2), np.int32)),
            TensorSpec("y", y, signature=signature),
        ]
        operators = [OperatorSpec("SPACE_TO_BATCH_ND", [0, 1, 2], [3])]
        return write_tflite(SubgraphSpec(tensors, [0], [3], operators))

    with pytest.raises(SourceError, match="leaves its shape open") as caught:
        layertap.open(moved(1, [-1, 2, 2, 1]), "tflm")
    assert "batch_size=1" in caught.value.hint
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    by_blocks = x[0].reshape(2, 2, 2, 2).transpose(1, 3, 0, 2).reshape(4, 2, 2, 1)
    with layertap.open(moved(4, None), "tflm") as model:
        np.testing.assert_array_equal(model.capture(x)["y"].raw[0], by_blocks)
    with layertap.open(moved(1, [-1, 2, 2, 1]), "litert") as model:
        np.testing.assert_array_equal(model.capture(x)["y"].raw[0], by_blocks)


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    data = known_model().data
    path = tmp_path / "bad.tflite"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptModel):
        layertap.open(path, runtime="tflm")
    with pytest.raises(SourceError):
        layertap.open(tmp_path / "none.tflite", runtime="tflm")
    for timeout in (0, -1, float("nan"), "soon"):
        with pytest.raises(SourceError, match="timeout"):
            layertap.open(data, runtime="tflm", timeout=timeout)
    with pytest.raises(SourceError, match="no such option"):
        layertap.open(data, runtime="tflm", kernels="default")


def test_without_the_framework_listing_works_and_capturing_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = known_model()
    monkeypatch.setattr(Runtime, "missing", lambda row: row.packages[0])
    with layertap.open(known.data, runtime="tflm") as model:
        assert "dense" in model.graph
        assert model.read("weights").shape == (4, 6)
        with pytest.raises(MissingRuntime) as caught:
            model.capture(known.feed)
        assert "layertap[tflm]" in caught.value.hint


def test_provenance_and_closing() -> None:
    known = known_model()
    model = layertap.open(known.data, runtime="tflm")
    facts = model.capture(known.feed).provenance
    assert facts["runtime"] == "tflm"
    assert facts["version"]
    assert facts["kernels"] == "reference"
    assert facts["arena"] == "automatic"
    assert facts["bit_exact"] is True
    assert len(facts["model"]["sha256"]) == 64
    run_pass = model.session.prepare(list(model.graph.outputs))
    model.close()
    with pytest.raises(RunError, match="closed"):
        run_pass(known.feed, lambda *_: None)
