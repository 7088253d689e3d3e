"""The editor: what it adds, and that everything else stays what and where it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as generated

from layertap.errors import PlanError, Untappable
from layertap.testing.tflite import (
    OperatorSpec,
    SignatureSpec,
    SubgraphSpec,
    TensorSpec,
    write_tflite,
)
from layertap.testing.tflite_cases import additions
from layertap.tflite.edit import OFFLINE_PLAN, with_outputs
from layertap.tflite.model import parse


def changed_bytes(before: bytes, after: bytes) -> list[int]:
    return [i for i in range(len(before)) if before[i] != after[i]]


def test_outputs_are_appended_and_nothing_else_changes() -> None:
    data = write_tflite(additions(4))
    edited = with_outputs(data, [2, 1, 2, 4])
    slot = parse(data).subgraphs[0].outputs_slot
    assert parse(edited).subgraphs[0].outputs == (4, 2, 1)
    assert changed_bytes(data, edited)
    assert set(changed_bytes(data, edited)) <= set(range(slot, slot + 4))


def test_what_is_an_output_already_changes_nothing() -> None:
    data = write_tflite(additions(4))
    assert with_outputs(data, [4]) is data
    assert with_outputs(data, []) is data


def test_editing_twice() -> None:
    data = write_tflite(additions(4))
    edited = with_outputs(with_outputs(data, [1]), [3])
    assert parse(edited).subgraphs[0].outputs == (4, 1, 3)


def test_signatures_get_the_outputs_too() -> None:
    signatures = [
        SignatureSpec("first", {"in": 0}, {"out": 4}),
        SignatureSpec("second", {"in": 0}, {"t1": 4}),
        SignatureSpec("other", {"in": 0}, {"out": 2}, subgraph=1),
    ]
    data = write_tflite(additions(4), additions(2), signatures=signatures)
    edited = with_outputs(data, [1, 2])
    model = generated.ModelT.InitFromObj(generated.Model.GetRootAsModel(edited, 0))
    outputs = {
        s.signatureKey.decode(): [(o.name.decode(), o.tensorIndex) for o in s.outputs]
        for s in model.signatureDefs
    }
    assert outputs == {
        "first": [("out", 4), ("t0", 1), ("t1", 2)],
        "second": [("t1", 4), ("t0", 1), ("t1@1", 2)],
        "other": [("out", 2)],
    }
    assert list(model.subgraphs[0].outputs) == [4, 1, 2]
    assert list(model.subgraphs[1].outputs) == [2]
    slots = [parse(data).subgraphs[0].outputs_slot]
    slots += [s.outputs_slot for s in parse(data).signatures[:2]]
    allowed = {i for slot in slots for i in range(slot, slot + 4)}
    assert set(changed_bytes(data, edited)) <= allowed


def test_another_subgraph() -> None:
    edited = parse(with_outputs(write_tflite(additions(4), additions(2)), [1], subgraph=1))
    assert [subgraph.outputs for subgraph in edited.subgraphs] == [(4,), (2, 1)]


def test_a_ready_memory_layout_lets_new_outputs_go() -> None:
    offsets = [0, 16, 32, 0, 16, -1, 0, 16, 32, -1]
    layout = np.array([1, 2, len(offsets), *offsets], "<i4").tobytes()
    data = write_tflite(additions(4), additions(2), metadata={OFFLINE_PLAN: layout})
    for subgraph, tensor, entry in ((0, 2, 2), (1, 1, 7)):
        model = parse(with_outputs(data, [tensor], subgraph=subgraph))
        where = model.metadata[OFFLINE_PLAN]
        entries = np.frombuffer(model.data[where.start : where.stop], "<i4")[3:].tolist()
        assert entries == [-1 if i == entry else old for i, old in enumerate(offsets)]


def test_inputs_and_variables_can_be_outputs_and_weights_cannot() -> None:
    tensors = [TensorSpec("x", (1, 2)), TensorSpec("y", (1, 2)), TensorSpec("v", (1, 2))]
    tensors[2] = TensorSpec("v", (1, 2), variable=True)
    tensors.append(TensorSpec("w", (2,), data=np.ones(2, np.float32)))
    data = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("ADD", [0, 3], [1])]))
    assert parse(with_outputs(data, [0, 2])).subgraphs[0].outputs == (1, 0, 2)
    with pytest.raises(Untappable, match="no operator computes it"):
        with_outputs(data, [3])
    with pytest.raises(PlanError, match="no tensor 9"):
        with_outputs(data, [9])


def test_a_model_without_a_list_of_outputs() -> None:
    data = bytearray(write_tflite(additions(4)))
    root = generated.Model.GetRootAsModel(bytes(data), 0)
    table = root.Subgraphs(0)._tab
    vtable = table.Pos - int.from_bytes(data[table.Pos : table.Pos + 4], "little", signed=True)
    data[vtable + 8 : vtable + 10] = b"\0\0"
    with pytest.raises(Untappable, match="no list of outputs"):
        with_outputs(bytes(data), [1])


@pytest.mark.slow
def test_real_models_keep_their_bytes_and_alignment(shared: Path) -> None:
    for path in sorted(shared.glob("models/*/*.tflite")):
        data = path.read_bytes()
        before = parse(data)
        computed = [i for op in before.subgraphs[0].operators for i in op.outputs]
        after = parse(with_outputs(data, computed))
        places = [before.subgraphs[0].outputs_slot, *(s.outputs_slot for s in before.signatures)]
        allowed = {i for slot in places for i in range(slot, slot + 4)}
        layout = before.metadata.get(OFFLINE_PLAN, range(0))
        assert set(changed_bytes(data, after.data)) <= allowed | set(layout), path.name
        for old, new in zip(before.subgraphs[0].tensors, after.subgraphs[0].tensors, strict=True):
            assert old == new
        outputs = after.subgraphs[0].outputs
        assert outputs[: len(before.subgraphs[0].outputs)] == before.subgraphs[0].outputs
        assert set(outputs) == set(computed)
