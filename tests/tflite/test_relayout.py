"""Layouts in files: what is written, and that everything else stays what it was."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as generated
from ai_edge_litert.interpreter import Interpreter

from layertap.errors import CorruptModel, PlanError
from layertap.testing.tflite import (
    OperatorSpec,
    SignatureSpec,
    SubgraphSpec,
    TensorSpec,
    write_tflite,
)
from layertap.testing.tflite_cases import additions
from layertap.tflite.edit import OFFLINE_PLAN, with_outputs
from layertap.tflite.model import TfliteModel, parse
from layertap.tflite.relayout import with_layout


def layout_of(data: bytes) -> list[int]:
    held = parse(data).metadata[OFFLINE_PLAN]
    assert held.start % 16 == 0
    return np.frombuffer(data[held.start : held.stop], "<i4").tolist()


def known(model: TfliteModel) -> object:
    """What a model holds but where it holds it."""
    stored = {
        (graph.index, tensor.index): model.data[tensor.data.start : tensor.data.stop]
        for graph in model.subgraphs
        for tensor in graph.tensors
    }
    graphs = [(g.name, g.inputs, g.outputs, g.operators) for g in model.subgraphs]
    signatures = [(s.key, s.subgraph, s.inputs, s.outputs) for s in model.signatures]
    metadata = {
        name: model.data[held.start : held.stop]
        for name, held in model.metadata.items()
        if name != OFFLINE_PLAN
    }
    return stored, graphs, signatures, metadata


@pytest.mark.parametrize("metadata", [{}, {"min_runtime_version": b"1.5.0" + bytes(11)}])
def test_a_layout_is_added_before_everything_else(metadata: dict[str, bytes]) -> None:
    signature = SignatureSpec("serve", {"in": 0}, {"out": 3})
    data = write_tflite(additions(3), additions(2), signatures=[signature], metadata=metadata)
    offsets = [0, 16, 32, 48, None, 64, 80, 96, None]
    edited = with_layout(data, offsets)
    assert layout_of(edited) == [1, 2, 9, *(-1 if offset is None else offset for offset in offsets)]
    assert edited.endswith(data)
    assert (len(edited) - len(data)) % 64 == 0
    assert known(parse(edited)) == known(parse(data))
    places = zip(parse(data).subgraphs[0].tensors, parse(edited).subgraphs[0].tensors, strict=True)
    for old, new in places:
        assert not old.data or (new.data.start - old.data.start) % 64 == 0


def test_the_schema_s_own_reader_agrees() -> None:
    data = write_tflite(additions(3), metadata={"other": b"x" * 8})
    model = generated.ModelT.InitFromObj(
        generated.Model.GetRootAsModel(with_layout(data, [0, 16, 0, 16, None]), 0)
    )
    assert [m.name for m in model.metadata] == [b"other", OFFLINE_PLAN.encode()]
    assert [m.buffer for m in model.metadata] == [2, 3]
    assert len(model.buffers) == 4
    held = model.buffers[3].data.tobytes()
    assert np.frombuffer(held, "<i4").tolist() == [1, 1, 5, 0, 16, 0, 16, -1]


def test_a_layout_is_replaced_where_it_is() -> None:
    first = with_layout(write_tflite(additions(3)), [0, 16, 32, 48, None])
    second = with_layout(first, [48, 32, 16, 0, None])
    held = parse(first).metadata[OFFLINE_PLAN]
    assert layout_of(second)[3:] == [48, 32, 16, 0, -1]
    assert second[: held.start] == first[: held.start]
    assert second[held.stop :] == first[held.stop :]


def test_a_layout_whose_bytes_are_a_weight_too_is_replaced_elsewhere() -> None:
    """Buffers with the same contents may be stored once; the weight must stay what it is."""
    layout = np.array([1, 1, 3, 0, 16, -1], "<i4")
    tensors = [TensorSpec("x", (6,), "int32"), TensorSpec("y", (6,), "int32")]
    tensors.append(TensorSpec("w", (6,), "int32", data=layout))
    graph = SubgraphSpec(tensors, [0], [1], [OperatorSpec("ADD", [0, 2], [1])])
    model = generated.ModelT.InitFromObj(generated.Model.GetRootAsModel(write_tflite(graph), 0))
    entry = generated.MetadataT()
    entry.name, entry.buffer = OFFLINE_PLAN, model.subgraphs[0].tensors[2].buffer
    model.metadata = [entry]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    edited = with_layout(bytes(builder.Output()), [64, 0, None])
    assert layout_of(edited)[3:] == [64, 0, -1]
    weight = parse(edited).subgraphs[0].tensors[2].data
    assert edited[weight.start : weight.stop] == layout.tobytes()


def test_tapping_afterwards() -> None:
    edited = with_outputs(with_layout(write_tflite(additions(3)), [0, 16, 0, 16, None]), [1])
    assert layout_of(edited)[3:] == [0, -1, 0, 16, -1]
    assert parse(edited).subgraphs[0].outputs == (3, 1)


def test_a_wrong_number_of_offsets() -> None:
    with pytest.raises(PlanError, match="4 offsets for 5 tensors"):
        with_layout(write_tflite(additions(3)), [0] * 4)


@pytest.mark.parametrize("offset", [-16, 1 << 31])
def test_an_offset_that_cannot_be(offset: int) -> None:
    with pytest.raises(PlanError, match=f"the offset {offset}"):
        with_layout(write_tflite(additions(3)), [0, 16, offset, 48, None])


def test_not_a_model() -> None:
    with pytest.raises(CorruptModel):
        with_layout(b"\x08\0\0\0TFL3" + bytes(8), [])


def test_a_file_of_a_newer_format() -> None:
    """A root with a field that this version does not know."""
    data = bytearray(write_tflite(additions(3)))
    model = generated.Model.GetRootAsModel(bytes(data), 0)._tab
    places = [4 + 2 * n for n in range(10)]
    size = 4 + 2 * 12
    fields = [model.Offset(place) for place in places] + [0, model.Offset(4)]
    vtable = len(data) + (-len(data)) % 4
    data += bytes(-len(data) % 4)
    data += size.to_bytes(2, "little") + (64).to_bytes(2, "little")
    for place in fields:
        data += int(place).to_bytes(2, "little")
    data += bytes(64)
    data[model.Pos : model.Pos + 4] = (model.Pos - vtable).to_bytes(4, "little", signed=True)
    parse(bytes(data))
    with pytest.raises(PlanError, match="newer format"):
        with_layout(bytes(data), [None] * 5)


@pytest.mark.slow
def test_real_models_stay_what_they_are(shared: Path) -> None:
    for path in sorted(shared.glob("models/*/*.tflite")):
        data = path.read_bytes()
        model = parse(data)
        count = sum(len(graph.tensors) for graph in model.subgraphs)
        edited = with_layout(data, [16 * i for i in range(count)])
        assert edited.endswith(data), path.name
        assert known(parse(edited)) == known(model), path.name
        if path.stem == "person_detect":
            continue  # LiteRT refuses how its biases are quantized, with a layout or without
        both = [Interpreter(model_content=content) for content in (data, edited)]
        answers = []
        for interpreter in both:
            interpreter.allocate_tensors()
            for detail in interpreter.get_input_details():
                rng = np.random.default_rng(0)
                value = rng.integers(-100, 100, detail["shape"]).astype(detail["dtype"])
                interpreter.set_tensor(detail["index"], value)
            interpreter.invoke()
            found = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
            answers.append([value.tobytes() for value in found])
        assert answers[0] == answers[1], path.name
