"""LiteRT: kernels, odd models, state, open sizes, refusals."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import layertap
from layertap.core.graph import COMPUTED
from layertap.errors import (
    CorruptModel,
    LayertapError,
    MissingRuntime,
    RuntimeFailure,
    SourceError,
    Untappable,
)
from layertap.runtimes.litert import LitertSession
from layertap.runtimes.registry import Runtime
from layertap.runtimes.worker.process import WorkerFailure
from layertap.testing.tflite import (
    OperatorSpec,
    SignatureSpec,
    SubgraphSpec,
    TensorSpec,
    write_tflite,
)
from layertap.testing.tflite_cases import known_model

pytestmark = pytest.mark.slow  # starts a worker per test
RESOLVERS = {
    "default": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


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


def run_bare(data: bytes, kernels: str, feed: list[np.ndarray], preserve: bool) -> Interpreter:
    interpreter = Interpreter(
        model_content=data,
        experimental_op_resolver_type=RESOLVERS[kernels],
        experimental_preserve_all_tensors=preserve,
    )
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), feed, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return interpreter


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["builtin", "reference"])
def test_every_tensor_of_every_shared_model_is_what_the_interpreter_preserves(
    shared: Path, kernels: str
) -> None:
    compared = 0
    for path in sorted(shared.glob("models/*/*.tflite")):
        if path.stem == "person_detect":
            continue
        with layertap.open(path, runtime="litert", kernels=kernels) as model:
            feed = feed_of(model)
            run = model.capture(feed)
            oracle = run_bare(path.read_bytes(), kernels, list(feed.values()), preserve=True)
            for name, capture in run.items():
                value = oracle.get_tensor(capture.tap.index)
                np.testing.assert_array_equal(
                    np.asarray(capture.raw).reshape(value.shape), value, err_msg=name
                )
                compared += 1
    assert compared > 80


@pytest.mark.slow
def test_default_kernels_give_the_outputs_of_the_untouched_model(shared: Path) -> None:
    """On these models reading every tensor changes no bit of the outputs, though nobody promises
    that, and the session does not claim it."""
    for path in sorted(shared.glob("models/*/*.tflite")):
        if path.stem == "person_detect":
            continue
        with layertap.open(path, runtime="litert") as model:
            assert not model.session.capabilities.bit_exact
            feed = feed_of(model)
            run = model.capture(feed)
            bare = run_bare(path.read_bytes(), "default", list(feed.values()), preserve=False)
            for tap in model.graph.outputs:
                value = bare.get_tensor(tap.index)
                np.testing.assert_array_equal(run[tap.name].raw, value, err_msg=path.name)


@pytest.mark.slow
def test_kernels_differ_and_are_written_into_the_provenance(shared: Path) -> None:
    path = shared / "models" / "mlperf-tiny" / "resnet_float.tflite"
    runs = {}
    for kernels in RESOLVERS:
        with layertap.open(path, runtime="litert", kernels=kernels) as model:
            runs[kernels] = model.capture(feed_of(model))
        facts = runs[kernels].provenance
        assert (facts["runtime"], facts["kernels"]) == ("litert", kernels)
        assert facts["bit_exact"] == (kernels != "default")
        assert facts["model"]["path"] == str(path)
    assert "XNNPACK" in runs["default"].provenance["not_bit_exact_because"]
    differing = [
        name
        for name in runs["default"]
        if (runs["default"][name].raw != runs["reference"][name].raw).any()
    ]
    assert differing


@pytest.mark.slow
def test_person_detector_is_refused_and_the_hint_names_tflm(shared: Path) -> None:
    path = shared / "models" / "tflm" / "person_detect.tflite"
    with layertap.open(path, runtime="litert") as model:
        assert len(model.graph) == 89
        with pytest.raises(RuntimeFailure, match="quantized_dimension") as caught:
            model.capture(feed_of(model))
    assert 'runtime="tflm"' in caught.value.hint
    assert len(caught.value.message) < 600


@pytest.mark.slow
def test_state_is_reset_between_samples_unless_kept(shared: Path) -> None:
    path = shared / "models" / "tflm" / "mnist_lstm_int8.tflite"
    x = np.random.default_rng(0).integers(-128, 127, (3, 28, 28)).astype(np.int8)
    with layertap.open(path, runtime="litert") as model:
        together, alone = model.capture(x), model.capture(x[1:2])
    with layertap.open(path, runtime="litert", keep_state=True) as model:
        kept, afresh = model.capture(x), model.capture(x)
    state = [tap.name for tap in kept.taps if tap.kind == "state"]
    assert len(state) == 2
    for name in together:
        np.testing.assert_array_equal(together[name].raw[1:2], alone[name].raw)
        np.testing.assert_array_equal(kept[name].raw, afresh[name].raw)
    assert any((kept[name].raw[1] != together[name].raw[1]).any() for name in state)


def test_state_tensors_do_not_depend_on_the_other_taps() -> None:
    """A variable is read where it lies; an SVDF layer keeps its last inputs there."""
    tensors = [
        TensorSpec("x", (1, 2)),
        TensorSpec("feature", (2, 2), data=np.eye(2, dtype=np.float32)),
        TensorSpec("time", (2, 3), data=np.ones((2, 3), np.float32)),
        TensorSpec("state", (1, 6), variable=True),
        TensorSpec("y", (1, 2)),
    ]
    svdf = OperatorSpec("SVDF", [0, 1, 2, -1, 3], [4], {0: 1})
    data = write_tflite(SubgraphSpec(tensors, [0], [4], [svdf]))
    x = np.array([[1, 2], [3, 4]], np.float32)
    for kernels in RESOLVERS:
        with layertap.open(data, runtime="litert", kernels=kernels) as model:
            assert model.capture(x, taps="y")["y"].raw.tolist() == [[1, 2], [3, 4]]
            run = model.capture(x, taps=["state"])
            assert run["state"].raw[:, [2, 5]].tolist() == [[1, 2], [3, 4]]
        with layertap.open(data, runtime="litert", kernels=kernels, keep_state=True) as model:
            run = model.capture(x)
            assert run["y"].raw.tolist() == [[1, 2], [4, 6]]
            assert run["state"].raw[1].tolist() == [0, 1, 3, 0, 2, 4]


@pytest.mark.parametrize("kernels", list(RESOLVERS))
def test_odd_names_batch_4_and_a_reshape_in_place(kernels: str) -> None:
    x = {"shape": (4, 2)}
    tensors = [
        TensorSpec("", **x),
        TensorSpec("dup", **x),
        TensorSpec("dup", **x),
        TensorSpec("dup@1", (4, 2, 1)),
        TensorSpec("a b;c/d:0 ~|&(\u00e9", (4, 2, 1)),
        TensorSpec("shape", (3,), "int32", data=np.array([4, 2, 1], np.int32)),
    ]
    operators = [
        OperatorSpec("RELU", [0], [1]),
        OperatorSpec("ADD", [1, 1], [2]),
        OperatorSpec("RESHAPE", [2, 5], [3]),
        OperatorSpec("ADD", [3, 3], [4]),
    ]
    data = write_tflite(SubgraphSpec(tensors, [0], [4], operators))
    value = np.arange(-6, 10, dtype=np.float32).reshape(8, 2)
    with layertap.open(data, runtime="litert", kernels=kernels) as model:
        assert [tap.name for tap in model.graph][:4] == ["tensor_0", "dup", "dup@2", "dup@1"]
        run = model.capture(value)
        odd = model.capture(value, taps="a b;c/d:0 ~|&(\u00e9")
    relu = np.maximum(value, 0)
    np.testing.assert_array_equal(run["dup"].raw, relu)
    np.testing.assert_array_equal(run["dup@2"].raw, relu * 2)
    np.testing.assert_array_equal(run["dup@1"].raw[..., 0], relu * 2)
    np.testing.assert_array_equal(odd["a b;c/d:0 ~|&(\u00e9"].raw[..., 0], relu * 4)


def branching() -> bytes:
    x = {"shape": (1, 2)}
    main = SubgraphSpec(
        [
            TensorSpec("which", (), "bool"),
            TensorSpec("x", **x),
            TensorSpec("y", **x),
            TensorSpec("z", **x),
        ],
        [0, 1],
        [3],
        [OperatorSpec("IF", [0, 1], [2], {0: 1, 1: 2}), OperatorSpec("RELU", [2], [3])],
    )
    yes = SubgraphSpec(
        [TensorSpec("x", **x), TensorSpec("y", **x), TensorSpec("middle", **x)],
        [0],
        [1],
        [OperatorSpec("ADD", [0, 0], [2]), OperatorSpec("MUL", [2, 2], [1])],
    )
    no = SubgraphSpec(
        [TensorSpec("x", **x), TensorSpec("y", **x)], [0], [1], [OperatorSpec("NEG", [0], [1])]
    )
    return write_tflite(main, yes, no)


@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_control_flow(runtime: str) -> None:
    x = np.array([[1, -2]], np.float32)
    with layertap.open(branching(), runtime=runtime) as model:
        for which, y in ((True, [[4, 16]]), (False, [[-1, 2]])):
            run = model.capture({"which": np.array(which), "x": x})
            assert run["y"].raw[0].tolist() == y
            assert run["z"].raw[0].tolist() == np.maximum(y, 0).tolist()
        with pytest.raises(Untappable, match="a subgraph that IF runs"):
            model.capture({"which": np.array(True), "x": x}, taps="s1/middle")
        with pytest.raises(Untappable, match="a subgraph that IF runs"):
            model.capture({"which": np.array(True), "x": x}, taps="s1/#2")
        with pytest.raises(Untappable, match="a subgraph that IF runs") as refused:
            model.session.prepare([model.graph["s1/middle"]])
        assert "leave it out" in refused.value.hint
        with pytest.raises(Untappable, match="a subgraph that IF runs") as refused:
            model.export(until="s1/middle")
        assert "before or after it" in refused.value.hint


def test_several_signatures() -> None:
    main = SubgraphSpec(
        [TensorSpec(name, (1, 2)) for name in "xyz"],
        [0],
        [2],
        [OperatorSpec("RELU", [0], [1]), OperatorSpec("ADD", [1, 1], [2])],
    )
    other = SubgraphSpec(
        [TensorSpec(name, (1, 2)) for name in ("x", "y", "half")],
        [0],
        [1],
        [OperatorSpec("NEG", [0], [2]), OperatorSpec("ADD", [2, 2], [1])],
    )
    signatures = [
        SignatureSpec("one", {"x": 0}, {"z": 2}),
        SignatureSpec("two", {"x": 0}, {"y": 2}),
        SignatureSpec("negative", {"x": 0}, {"y": 1}, subgraph=1),
    ]
    data = write_tflite(main, other, signatures=signatures)
    x = np.array([[1, -2]], np.float32)
    for runtime in ("litert", "tflm"):
        with layertap.open(data, runtime=runtime) as model:
            run = model.capture(x)
            assert {n: c.raw.tolist() for n, c in run.items()} == {"y": [[1, 0]], "z": [[2, 0]]}
            with pytest.raises(Untappable, match="signature 'negative'"):
                model.capture(x, taps="s1/y")
    for kernels in RESOLVERS:
        with layertap.open(data, runtime="litert", signature="negative", kernels=kernels) as model:
            assert [spec.name for spec in model.session.inputs] == ["s1/x"]
            run = model.capture(x)
            assert {n: c.raw.tolist() for n, c in run.items()} == {
                "s1/half": [[-1, 2]],
                "s1/y": [[-2, 4]],
            }
            assert run.provenance["signature"] == "negative"
            with pytest.raises(Untappable, match="signature 'one'"):
                model.capture(x, taps="z")
    with pytest.raises(SourceError, match="no signature 'none'") as caught:
        layertap.open(data, runtime="litert", signature="none")
    assert "'negative'" in caught.value.hint


def test_open_sizes_follow_the_input() -> None:
    tensors = [
        TensorSpec("x", (1, 1, 2), signature=(-1, -1, 2)),
        TensorSpec("y", (1, 1, 2), signature=(-1, -1, 2)),
        TensorSpec("sum", (1, 2), signature=(-1, 2)),
        TensorSpec("axis", (1,), "int32", data=np.array([1], np.int32)),
    ]
    operators = [OperatorSpec("RELU", [0], [1]), OperatorSpec("SUM", [1, 3], [2])]
    data = write_tflite(SubgraphSpec(tensors, [0], [2], operators))
    with layertap.open(data, runtime="litert") as model:
        for length in (1, 5, 3, 5):
            x = np.arange(-2, length * 4 - 2, dtype=np.float32).reshape(2, length, 2)
            run = model.capture(x)
            np.testing.assert_array_equal(run["y"].raw, np.maximum(x, 0))
            np.testing.assert_array_equal(run["sum"].raw, np.maximum(x, 0).sum(1))


@pytest.mark.parametrize("kernels", list(RESOLVERS))
def test_sizes_that_depend_on_values(kernels: str) -> None:
    tensors = [
        TensorSpec("x", (1, 4)),
        TensorSpec("positive", (1, 4), "bool"),
        TensorSpec("where", (1, 2), "int64", signature=(-1, 2)),
        TensorSpec("zero", (), data=np.float32(0)),
    ]
    operators = [OperatorSpec("GREATER", [0, 3], [1]), OperatorSpec("WHERE", [1], [2])]
    data = write_tflite(SubgraphSpec(tensors, [0], [2], operators))
    x = np.array([[1, -1, 2, 3], [-1, -1, 5, -1], [-1] * 4, [-1, -1, -1, 2], [-1] * 4], np.float32)
    with layertap.open(data, runtime="litert", kernels=kernels) as model:
        run = model.capture(x)
    for row, found in zip(x, run["where"].raw, strict=True):
        np.testing.assert_array_equal(found, np.argwhere(row[None] > 0))
        assert found.shape[1:] == (2,)
    np.testing.assert_array_equal(run["positive"].raw, x > 0)


def test_options_are_checked() -> None:
    data = known_model().data
    with pytest.raises(SourceError) as caught:
        layertap.open(data, runtime="litert", kernels="fast")
    assert "default, builtin, reference" in caught.value.hint
    with pytest.raises(SourceError, match="threads"):
        layertap.open(data, runtime="litert", threads=0)
    with pytest.raises(SourceError, match="no such option"):
        layertap.open(data, runtime="litert", arena=1)
    with pytest.raises(CorruptModel):
        layertap.open(data[:300], runtime="litert")


def test_a_custom_operator_is_refused() -> None:
    tensors = [TensorSpec("x", (1, 2)), TensorSpec("y", (1, 2))]
    data = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("my_op", [0], [1])]))
    with (
        layertap.open(data, runtime="litert") as model,
        pytest.raises(RuntimeFailure, match="my_op"),
    ):
        model.capture(np.ones((1, 2), np.float32))


def test_an_input_that_is_listed_twice() -> None:
    tensors = [TensorSpec("x", (1, 2)), TensorSpec("y", (1, 2))]
    data = write_tflite(SubgraphSpec(tensors, [0, 0], [1], [OperatorSpec("ADD", [0, 0], [1])]))
    x = np.array([[1, 2], [3, 4]], np.float32)
    with layertap.open(data, "litert") as model:
        np.testing.assert_array_equal(model.capture(x)["y"].raw, x * 2)


def test_text_inputs_are_refused() -> None:
    tensors = [TensorSpec("x", (1,), "string"), TensorSpec("y", (1,), "string")]
    data = write_tflite(SubgraphSpec(tensors, [0], [1], []))
    with layertap.open(data, runtime="litert") as model, pytest.raises(Untappable, match="string"):
        model.session.prepare([])


def test_without_the_framework_listing_works_and_capturing_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = known_model()
    monkeypatch.setattr(Runtime, "missing", lambda row: row.packages[0])
    with layertap.open(known.data, runtime="litert") as model:
        assert "dense" in model.graph
        with pytest.raises(MissingRuntime) as caught:
            model.capture(known.feed)
        assert "layertap[litert]" in caught.value.hint


def test_what_the_interpreter_prints_stays_away_from_the_caller(
    capfd: pytest.CaptureFixture[str],
) -> None:
    known = known_model()
    with layertap.open(known.data, runtime="litert") as model:
        model.capture(known.feed)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_damaged_models_end_in_errors_of_ours(runtime: str) -> None:
    rng = random.Random(3)
    known = known_model()
    endings = set()
    for _ in range(15):
        data = bytearray(known.data)
        data[rng.randrange(8, len(data))] ^= 1 << rng.randrange(8)
        try:
            with layertap.open(bytes(data), runtime=runtime, timeout=10) as model:
                taps = [t.name for t in model.graph if t.kind in COMPUTED and not t.untappable]
                model.capture(feed_of(model), taps=taps)
            endings.add("fine")
        except LayertapError as error:
            endings.add(type(error).__name__)
    assert {"fine", "CorruptModel"} <= endings


def test_after_a_crash_the_hint_says_what_may_run_the_model() -> None:
    relu = [TensorSpec("x", (1, 2)), TensorSpec("y", (1, 2))]
    for operator, tflm in (("RELU", True), ("ATAN2", False)):
        given = [0, 0] if operator == "ATAN2" else [0]
        data = write_tflite(SubgraphSpec(relu, [0], [1], [OperatorSpec(operator, given, [1])]))
        with layertap.open(data, "litert", kernels="builtin") as model:
            session = model.session
            assert isinstance(session, LitertSession)
            crash = session.failed(WorkerFailure("crashed with SIGABRT", native="", crashed=True))
            assert ('runtime="tflm"' in crash.hint) == tflm
            assert 'kernels="reference"' in crash.hint
            assert 'kernels="builtin"' not in crash.hint
            refusal = session.failed(WorkerFailure("refused", native="", crashed=False))
            assert refusal.hint == "the session can be used again"


def custom(name: str, *, first: bool = False) -> bytes:
    """A model with an operator ``name`` behind an ordinary one, or at its very start."""
    tensors = [TensorSpec(n, (1, 2)) for n in ("x", "h", "y")]
    names = [name, "RELU"] if first else ["RELU", name]
    operators = [OperatorSpec(n, [i], [i + 1]) for i, n in enumerate(names)]
    return write_tflite(SubgraphSpec(tensors, [0], [2], operators))


@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_what_comes_before_a_custom_operator_can_be_exported_and_run(runtime: str) -> None:
    x = np.array([[1, -2]], np.float32)
    with layertap.open(custom("my_op"), runtime) as model:
        with pytest.raises(RuntimeFailure, match="my_op") as caught:
            model.capture(x)
        assert 'until="h"' in caught.value.hint
        part = model.export(until="h")
    with layertap.open(part, runtime) as model:
        np.testing.assert_array_equal(model.capture(x)["h"].raw, [[1, 0]])


@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_where_nothing_comes_before_a_custom_operator(runtime: str) -> None:
    with (
        layertap.open(custom("my_op", first=True), runtime) as model,
        pytest.raises(RuntimeFailure, match="my_op") as caught,
    ):
        model.capture(np.ones((1, 2), np.float32))
    assert "until" not in caught.value.hint
    assert "runtime=" not in caught.value.hint
    assert "kernels=" not in caught.value.hint


def test_operations_of_tensorflow_are_called_so() -> None:
    with (
        layertap.open(custom("FlexErf"), "litert") as model,
        pytest.raises(RuntimeFailure, match="FlexErf") as caught,
    ):
        model.capture(np.ones((1, 2), np.float32))
    assert "SELECT_TF_OPS" in caught.value.hint


@pytest.mark.parametrize(("runtime", "operator"), [("litert", "SignalWindow"), ("tflm", "ATAN2")])
def test_the_hint_names_the_runtime_that_has_the_operator(runtime: str, operator: str) -> None:
    tensors = [TensorSpec(n, (1, 2)) for n in ("x", "y")]
    data = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec(operator, [0, 0], [1])]))
    with (
        layertap.open(data, runtime) as model,
        pytest.raises(RuntimeFailure, match=operator) as caught,
    ):
        model.capture(np.ones((1, 2), np.float32))
    other = "tflm" if runtime == "litert" else "litert"
    assert f'runtime="{other}"' in caught.value.hint


def test_the_hint_names_kernels_that_were_tried() -> None:
    tensors = [TensorSpec("x", (1, 2)), TensorSpec("y", (1, 2))]
    data = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("RELU", [0], [1])]))
    with layertap.open(data, "litert", kernels="reference") as model:
        session = model.session
        assert isinstance(session, LitertSession)
        load, asked = session.worker.load, []

        def refusing(slot: int, model: bytes, options: dict[str, object]) -> None:
            asked.append(options["kernels"])
            if options["kernels"] != "builtin":
                raise WorkerFailure("no such kernel", native="", crashed=False)
            load(slot, model, options)

        session.worker.load = refusing  # type: ignore[method-assign, assignment]
        with pytest.raises(RuntimeFailure, match="no such kernel") as caught:
            model.capture(np.ones((1, 2), np.float32))
    assert caught.value.hint == 'kernels="builtin" loads it'
    assert asked == ["reference", "default", "builtin"]
