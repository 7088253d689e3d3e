"""The cut: what it keeps, that it still computes the same, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from struct import pack, unpack

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as generated
from hypothesis import given, settings
from hypothesis import strategies as st

import layertap
from layertap.errors import PlanError, Untappable
from layertap.testing.micro_cases import layer_cases
from layertap.testing.tflite import (
    OperatorSpec,
    SignatureSpec,
    SubgraphSpec,
    TensorSpec,
    write_tflite,
)
from layertap.testing.tflite_cases import KnownModel, known_models
from layertap.tflite.cut import cut
from layertap.tflite.edit import OFFLINE_PLAN
from layertap.tflite.model import parse
from layertap.tflite.values import constant


def dense(count: int) -> SubgraphSpec:
    """``count`` additions of a constant of its own each: x 0, w 1, t 2, w 3, t 4, ..."""
    tensors = [TensorSpec("x", (1, 4))]
    operators = []
    for i in range(count):
        tensors.append(TensorSpec(f"w{i}", (1, 4), data=np.full((1, 4), i + 1, np.float32)))
        tensors.append(TensorSpec(f"t{i}", (1, 4)))
        operators.append(OperatorSpec("ADD", [2 * i, 2 * i + 1], [2 * i + 2]))
    return SubgraphSpec(tensors, [0], [2 * count], operators)


def test_what_lies_behind_is_gone() -> None:
    data = write_tflite(dense(4))
    model = parse(cut(data, [4]))
    graph = model.subgraphs[0]
    assert [tensor.name for tensor in graph.tensors] == ["x", "w0", "t0", "w1", "t1"]
    assert (graph.inputs, graph.outputs) == ((0,), (4,))
    assert [operator.name for operator in graph.operators] == ["ADD", "ADD"]
    np.testing.assert_array_equal(constant(model, graph.tensors[3]), np.full((1, 4), 2))
    assert len(cut(data, [4])) < len(data)


def test_weights_keep_their_alignment() -> None:
    for tensor in parse(cut(write_tflite(dense(3)), [6])).subgraphs[0].tensors:
        assert tensor.data.start % 16 == 0


def test_the_outputs_are_the_tensors_in_the_order_given() -> None:
    graph = parse(cut(write_tflite(dense(4)), [6, 2, 6])).subgraphs[0]
    assert [graph.tensors[i].name for i in graph.outputs] == ["t2", "t0"]


def test_an_input_that_is_not_needed_is_gone() -> None:
    tensors = [TensorSpec(name, (2,)) for name in ("a", "b", "left", "right")]
    steps = [OperatorSpec("RELU", [0], [2]), OperatorSpec("RELU", [1], [3])]
    data = write_tflite(SubgraphSpec(tensors, [0, 1], [2, 3], steps))
    graph = parse(cut(data, [3])).subgraphs[0]
    assert [graph.tensors[i].name for i in graph.inputs] == ["b"]


def test_signatures_name_what_is_left() -> None:
    data = write_tflite(
        dense(3), signatures=[SignatureSpec("serving", {"in": 0}, {"out": 6, "early": 2})]
    )
    (signature,) = parse(cut(data, [2, 4])).signatures
    assert signature.key == "serving"
    assert signature.inputs == (("in", 0),)
    assert signature.outputs == (("early", 2), ("t1", 4))


def test_subgraphs_that_are_not_run_are_gone() -> None:
    body = SubgraphSpec(
        [TensorSpec("i", (2,)), TensorSpec("o", (2,))], [0], [1], [OperatorSpec("RELU", [0], [1])]
    )
    main = SubgraphSpec(
        [TensorSpec(name, (2,)) for name in ("x", "loop", "choice")],
        [0],
        [2],
        [
            OperatorSpec("WHILE", [0], [1], {0: 1, 1: 2}),
            OperatorSpec("WHILE", [1], [2], {0: 3, 1: 2}),
        ],
    )
    data = write_tflite(main, body, body, body)
    model = parse(cut(data, [1]))
    assert len(model.subgraphs) == 3
    assert model.subgraphs[0].operators[0].calls == (1, 2)
    assert len(parse(cut(data, [2])).subgraphs) == 4


def test_a_ready_layout_is_cut_too() -> None:
    plan = pack("<10i", 1, 1, 7, 0, -1, 16, -1, 32, -1, 48)
    for padding in (b"", bytes(8)):
        model = parse(cut(write_tflite(dense(3), metadata={OFFLINE_PLAN: plan + padding}), [4]))
        held = model.metadata[OFFLINE_PLAN]
        assert unpack("<8i", model.data[held.start : held.stop]) == (1, 1, 5, 0, -1, 16, -1, -1)


def test_other_metadata_stays() -> None:
    data = write_tflite(dense(2), metadata={"min_runtime_version": b"2.3.0"})
    model = parse(cut(data, [2]))
    held = model.metadata["min_runtime_version"]
    assert model.data[held.start : held.stop] == b"2.3.0"


def test_variables_that_are_read_are_still_written() -> None:
    """The write comes after the tensor, and decides what the next execution reads."""
    handle = {0: "box", 1: "total"}
    tensors = [TensorSpec("x", (2,)), TensorSpec("h", (1,), "resource"), TensorSpec("old", (2,))]
    tensors += [TensorSpec("sum", (2,)), TensorSpec("after", (2,))]
    steps = [
        OperatorSpec("VAR_HANDLE", [], [1], handle),
        OperatorSpec("READ_VARIABLE", [1], [2]),
        OperatorSpec("ADD", [0, 2], [3]),
        OperatorSpec("ASSIGN_VARIABLE", [1, 3], []),
        OperatorSpec("RELU", [3], [4]),
    ]
    data = write_tflite(SubgraphSpec(tensors, [0], [4], steps))
    kept = parse(cut(data, [2])).subgraphs[0].operators
    assert [op.name for op in kept] == ["VAR_HANDLE", "READ_VARIABLE", "ADD", "ASSIGN_VARIABLE"]


def test_kernels_that_write_to_an_input_are_kept_for_it() -> None:
    """The state of SVDF is no result of any operator, and is read by two here."""
    tensors = [TensorSpec("x", (1, 2)), TensorSpec("features", (2, 2), data=np.ones((2, 2), "<f4"))]
    tensors += [TensorSpec("time", (2, 3), data=np.ones((2, 3), np.float32))]
    tensors += [TensorSpec("state", (1, 6), variable=True), TensorSpec("y", (1, 2))]
    tensors += [TensorSpec("seen", (1, 6)), TensorSpec("z", (1, 2))]
    steps = [
        OperatorSpec("RELU", [3], [5]),
        OperatorSpec("SVDF", [0, 1, 2, -1, 3], [4], {0: 1}),
        OperatorSpec("RELU", [4], [6]),
    ]
    data = write_tflite(SubgraphSpec(tensors, [0], [6], steps))
    for until in (3, 4, 5):
        kept = parse(cut(data, [until])).subgraphs[0].operators
        assert [op.name for op in kept] == ["RELU", "SVDF"], until


@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_a_state_keeps_its_value(runtime: str) -> None:
    data = layer_cases()["SVDF float32"]()
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    with layertap.open(data, runtime=runtime) as model:
        expected = model.capture(x, "kind:state")
        (name,) = expected
        made = model.export(until=name)
    with layertap.open(made, runtime=runtime) as model:
        found = model.capture(x, "kind:state")
    assert expected[name].raw.any()
    np.testing.assert_array_equal(found[name].raw, expected[name].raw)


def test_what_cannot_be_an_output_is_refused() -> None:
    with pytest.raises(Untappable):
        cut(write_tflite(dense(2)), [1])
    with pytest.raises(PlanError, match="nothing to cut"):
        cut(write_tflite(dense(2)), [])


def test_compressed_weights_are_refused() -> None:
    data = write_tflite(dense(2), metadata={"COMPRESSION_METADATA": b"1234"})
    with pytest.raises(PlanError, match="compressed weights"):
        cut(data, [2])


def fields(thing: object) -> object:
    """A generated object as plain values."""
    if isinstance(thing, list):
        return [fields(item) for item in thing]
    if isinstance(thing, np.ndarray):
        return thing.tolist()
    if hasattr(thing, "__dict__"):
        return {name: fields(value) for name, value in vars(thing).items()}
    return thing


def test_nothing_is_lost_on_the_way(shared: Path) -> None:
    """A model cut at its own outputs says the same in every field of every operator and tensor,
    but for the numbers of buffers and operator codes, and fields nobody reads."""
    for path in sorted((shared / "models").rglob("*.tflite")):
        data = path.read_bytes()
        outputs = parse(data).subgraphs[0].outputs
        before = generated.ModelT.InitFromPackedBuf(data, 0)
        after = generated.ModelT.InitFromPackedBuf(cut(data, outputs), 0)
        assert len(after.subgraphs) == len(before.subgraphs)
        for old, new in zip(
            before.subgraphs[0].operators, after.subgraphs[0].operators, strict=True
        ):
            assert fields(old.builtinOptions) == fields(new.builtinOptions), path
            assert fields(old.customOptions) == fields(new.customOptions), path
        named = {bytes(t.name): t for t in before.subgraphs[0].tensors}
        for tensor in after.subgraphs[0].tensors:
            old_tensor = named[bytes(tensor.name)]
            for name in ("shape", "type", "quantization", "shapeSignature", "isVariable"):
                assert fields(getattr(tensor, name)) == fields(getattr(old_tensor, name)), path
            held = fields(before.buffers[old_tensor.buffer].data)
            assert fields(after.buffers[tensor.buffer].data) == held, path


@pytest.mark.slow
@settings(max_examples=8)
@given(known_models(), st.data())
@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_the_cut_model_computes_the_same(
    runtime: str, model: KnownModel, choice: st.DataObject
) -> None:
    graph = parse(model.data).subgraphs[0]
    made = [op.outputs[0] for op in graph.operators]
    wanted = choice.draw(st.lists(st.sampled_from(made), min_size=1, max_size=2, unique=True))
    names = [graph.tensors[i].name for i in wanted]
    with layertap.open(cut(model.data, wanted), runtime=runtime) as opened:
        feed = {spec.name: model.feed[spec.name] for spec in opened.session.inputs}
        run = opened.capture(feed, taps=names)
        assert {tap.name for tap in opened.graph.of_kind("output")} == set(names)
    for name in names:
        expected = model.oracle[name]
        # One row for the batch, where samples that are all alike prove no axis.
        np.testing.assert_array_equal(run[name].raw.reshape(expected.shape), expected)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_real_models_compute_the_same(shared: Path, runtime: str) -> None:
    """The middle of every shared model, against the same tensor tapped."""
    options = {"litert": {"kernels": "reference"}, "tflm": {}}[runtime]
    refused = {"litert": {"person_detect"}, "tflm": {"kws_float"}}[runtime]
    for path in sorted((shared / "models").rglob("*.tflite")):
        if path.stem in refused:
            continue
        data = path.read_bytes()
        with layertap.open(path, runtime=runtime, **options) as whole:
            x = whole_feed(whole)
            taps = [tap for tap in whole.graph if tap.kind == "activation" and not tap.untappable]
            if not taps:
                continue
            tap = taps[len(taps) // 2]
            tapped = whole.capture(x, taps=tap.name)[tap.name].raw
        small = cut(data, [tap.index])
        assert len(small) < len(data)
        with layertap.open(small, runtime=runtime, **options) as model:
            values = model.capture(x, taps=tap.name)[tap.name].raw
        np.testing.assert_array_equal(values, tapped, err_msg=f"{path} {tap.name}")


def whole_feed(model: layertap.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feed = {}
    for spec in model.session.inputs:
        shape = tuple(1 if size is None else size for size in spec.shape)
        if spec.dtype == "float32":
            feed[spec.name] = rng.normal(size=shape).astype(np.float32)
        else:
            feed[spec.name] = rng.integers(-100, 100, shape).astype(spec.dtype)
    return feed
