"""Change a .tflite file without disturbing what stays.

Re-packing a file moves the weights off their 16-byte alignment. So new lists are appended, and the
offset that refers to the old list is patched: every other byte stays what and where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import flatbuffers
import numpy as np
from flatbuffers import packer

from layertap.errors import PlanError, Untappable
from layertap.tflite import schema
from layertap.tflite.flatbuffer import damaged
from layertap.tflite.model import Signature, TfliteModel, parse
from layertap.tflite.names import unique_names

OFFLINE_PLAN = "OfflineMemoryAllocation"
"""Metadata with a ready memory layout. Source: tflite-micro, docs/memory_management.md: int32
version, number of subgraphs, number of tensors, then one arena offset per tensor, -1 for none."""

_ALIGNMENT = 16


def with_outputs(data: bytes, tensors: Iterable[int], *, subgraph: int = 0) -> bytes:
    """``data`` with ``tensors`` of ``subgraph`` as further outputs, after those it has.

    The signatures of that subgraph get them too, under the tensors' names. Tensors that are
    outputs already are not repeated. In a ready memory layout the new outputs become free to lie
    anywhere, since the layout would hand their memory to later tensors.

    Raises CorruptModel for a damaged file and Untappable for tensors that cannot be outputs.
    """
    model = parse(data)
    graph = model.subgraphs[subgraph]
    added = [i for i in dict.fromkeys(tensors) if i not in graph.outputs]
    if not added:
        return data
    for i in added:
        check_can_be_output(model, subgraph, i)
    edited = bytearray(data)
    _free_in_layout(edited, model, subgraph, added)
    _append(edited, graph.outputs_slot, _index_list([*graph.outputs, *added]))
    names = unique_names([t.name or f"tensor_{t.index}" for t in graph.tensors])
    for signature in model.signatures:
        if signature.subgraph == subgraph and signature.outputs_slot:
            maps = _signature_outputs(signature, [(names[i], i) for i in added])
            _append(edited, signature.outputs_slot, maps)
    return bytes(edited)


def check_can_be_output(model: TfliteModel, subgraph: int, index: int) -> None:
    """Raises Untappable or PlanError for a tensor that cannot be made an output."""
    graph = model.subgraphs[subgraph]
    if not 0 <= index < len(graph.tensors):
        raise PlanError(
            f"there is no tensor {index} in subgraph {subgraph}",
            hint=f"it has {len(graph.tensors)} tensors",
        )
    tensor = graph.tensors[index]
    computed = any(index in operator.outputs for operator in graph.operators)
    if not computed and index not in graph.inputs and not tensor.variable:
        raise Untappable(
            f"{tensor.name!r} cannot be made an output: no operator computes it",
            hint="the value of a weight is read from the file",
        )
    if not graph.outputs_slot:
        raise Untappable(
            "outputs cannot be added to a model that has no list of outputs",
            hint="convert the model again with at least one output",
        )


def _append(edited: bytearray, slot: int, built: bytes) -> None:
    """Append a finished flatbuffer and let the offset at ``slot`` refer to its root."""
    edited += bytes(-len(edited) % _ALIGNMENT)
    target = len(edited) + packer.uoffset.unpack_from(built)[0]
    if target - slot >= 1 << 32:
        raise Untappable(
            "outputs cannot be added: the file is too large for its own offsets",
            hint="read the outputs it has",
        )
    packer.uoffset.pack_into(edited, slot, target - slot)
    edited += built


def _index_list(indices: Sequence[int]) -> bytes:
    builder = flatbuffers.Builder()
    vector = builder.CreateNumpyVector(np.asarray(indices, "<i4"))
    return _finished(builder, vector)


def _signature_outputs(signature: Signature, added: Sequence[tuple[str, int]]) -> bytes:
    pairs = [*signature.outputs, *added]
    names = unique_names([name for name, _ in pairs])
    builder = flatbuffers.Builder()
    tables = []
    for name, (_, index) in zip(names, pairs, strict=True):
        text = builder.CreateString(name)
        builder.StartObject(len(schema.TensorMap))
        builder.PrependUOffsetTRelativeSlot(schema.TensorMap.NAME, text, 0)
        builder.PrependUint32Slot(schema.TensorMap.TENSOR_INDEX, index, 0)
        tables.append(builder.EndObject())
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return _finished(builder, builder.EndVector())


def _finished(builder: flatbuffers.Builder, root: int) -> bytes:
    builder.Finish(root)
    return bytes(builder.Output())


def _free_in_layout(
    edited: bytearray, model: TfliteModel, subgraph: int, added: Sequence[int]
) -> None:
    layout = model.metadata.get(OFFLINE_PLAN)
    if not layout:
        return
    before = sum(len(graph.tensors) for graph in model.subgraphs[:subgraph])
    count = sum(len(graph.tensors) for graph in model.subgraphs)
    if len(layout) < 4 * (3 + count):
        raise damaged(f"its memory layout has {len(layout):,} bytes for {count} tensors")
    for i in added:
        packer.int32.pack_into(edited, layout.start + 4 * (3 + before + i), -1)


__all__ = ["OFFLINE_PLAN", "check_can_be_output", "with_outputs"]
