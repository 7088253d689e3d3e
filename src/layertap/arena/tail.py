"""The persistent section: what the interpreter and its kernels keep, in order.

It grows down from the end of the arena. Source: tflite-micro, tensorflow/lite/micro/
micro_allocator.cc, micro_interpreter.cc, arena_allocator/single_arena_buffer_allocator.cc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from layertap.arena.buffers import ALIGNMENT, aligned
from layertap.arena.memory_map import Section
from layertap.arena.minimum import Needs
from layertap.arena.node import Event, Persistent, Request, Temporary
from layertap.arena.preparation import Prepared
from layertap.arena.target import Target
from layertap.tflite.model import Subgraph, TfliteModel

_INT_ARRAY = 4
"""Bytes of an empty TfLiteIntArray, and of each of its entries."""

_NOTES = {
    "resource variables": "room for those that the model names; an application may ask for more"
}

Layout = Sequence[Sequence[int | None]]
"""Offsets that the model brings along, by subgraph and tensor; empty without."""


@dataclass(slots=True)
class Tail:
    """The section as it grows. ``used`` bytes from the end of the arena are taken, by ``parts``;
    ``needs`` is told of every moment that decides how small the arena may be."""

    target: Target
    needs: Needs
    used: int = 0
    parts: dict[str, list[int]] = field(default_factory=dict)

    def take(self, part: str, size: int, alignment: int = ALIGNMENT, count: int = 1) -> None:
        if not count:
            return
        before = self.used
        self.used = aligned(self.used + size, alignment) + (count - 1) * aligned(size, alignment)
        entry = self.parts.setdefault(part, [0, 0])
        entry[0] += count
        entry[1] += self.used - before
        self.needs.persistent(self.used)

    def struct(self, part: str, name: str, count: int = 1) -> None:
        size, alignment = self.target.structs[name]
        self.take(part, size * count, alignment)

    def sections(self) -> tuple[Section, ...]:
        return tuple(
            Section(name, count, size, _NOTES.get(name, ""))
            for name, (count, size) in self.parts.items()
        )


def build_tail(
    model: TfliteModel, target: Target, prepared: Prepared, layout: Layout, planned: int, head: int
) -> Tail:
    """The section for ``model``; ``planned`` is the number of buffers that the planner places,
    ``head`` the bytes that it needs for them."""
    tail = Tail(target, Needs(target))
    _framework(tail, model)
    _parameters(tail, prepared)
    _kernels(tail, prepared)
    count = len(prepared.scratch())
    if count:
        tail.struct("scratch handles", "ScratchBufferHandle", count)
    tensors = sum(len(graph.tensors) for graph in model.subgraphs)
    tail.needs.plan_begins(len(model.subgraphs), tensors + count, tail.used)
    _variables(tail, prepared, layout)
    tail.needs.plan_ends(planned, tail.used, head)
    main = model.subgraphs[0]
    interface(tail, "inputs", main, main.inputs)
    interface(tail, "outputs", main, main.outputs)
    return tail


def _framework(tail: Tail, model: TfliteModel) -> None:
    recording = "Recording" if tail.target.recording else ""
    tail.struct("interpreter", f"{recording}SingleArenaBufferAllocator")
    tail.struct("interpreter", "GreedyMemoryPlanner")
    tail.struct("interpreter", f"{recording}MicroAllocator")
    variables = resource_variables(model)
    if variables:
        size = tail.target.structs["MicroResourceVariable"][0]
        tail.take("resource variables", tail.target.structs["MicroResourceVariables"][0])
        tail.take("resource variables", size * variables)
    tail.struct("interpreter", "MicroBuiltinDataAllocator")
    tail.needs.scratch(0)
    tail.struct("interpreter", "SubgraphAllocations", len(model.subgraphs))
    for graph in model.subgraphs:
        tail.struct("tensors", "TfLiteEvalTensor", len(graph.tensors))
    for graph in model.subgraphs:
        tail.struct("operators", "NodeAndRegistration", len(graph.operators))


def resource_variables(model: TfliteModel) -> int:
    """As many as the model names, which is what the wheel makes room for."""
    return len(
        {
            operator.settings.text(1)
            for graph in model.subgraphs
            for operator in graph.operators
            if operator.name == "VAR_HANDLE"
        }
    )


def _parameters(tail: Tail, prepared: Prepared) -> None:
    for node in prepared.nodes:
        if node.name in tail.target.params:
            tail.take(node.name, *tail.target.params[node.name])


def _kernels(tail: Tail, prepared: Prepared) -> None:
    for node, events in zip(prepared.nodes, prepared.first, strict=True):
        _follow(tail, node.name, events)
    requests = 0
    for node in prepared.nodes:
        _follow(tail, node.name, node.events)
        requests += sum(isinstance(event, Request) for event in node.events)
        tail.needs.scratch(requests)


def _follow(tail: Tail, part: str, events: Sequence[Event]) -> None:
    for event in events:
        match event:
            case Persistent(size, times):
                tail.take(part, size, count=times)
            case Temporary(cell):
                for size, alignment in _description(tail.target, cell.tensor.channels):
                    tail.needs.temporary(size, alignment, tail.used)
            case Request():
                pass


def _description(target: Target, channels: int) -> list[tuple[int, int]]:
    """Sizes and alignments of what describes one tensor."""
    parts = [target.structs["TfLiteTensor"]]
    if channels:
        parts.append(target.structs["TfLiteAffineQuantization"])
        parts.append((_INT_ARRAY * (1 + channels), _INT_ARRAY))
    return parts


def _variables(tail: Tail, prepared: Prepared, layout: Layout) -> None:
    """The interpreter looks each variable up in the layout by its index within its subgraph, even
    if that is not the first one; the layout goes on counting."""
    flat = [offset for graph in layout for offset in graph]
    for cells in prepared.cells:
        for cell in cells:
            if cell.tensor.variable and (not flat or flat[cell.tensor.index] is None):
                tail.take("variables", cell.bytes)


def interface(tail: Tail, part: str, graph: Subgraph, tensors: Sequence[int]) -> None:
    """Let ``tail`` grow by what describes the inputs or outputs of a model."""
    tail.take(part, tail.target.pointer * len(tensors))
    for index in tensors:
        for size, alignment in _description(tail.target, graph.tensors[index].channels):
            tail.take(part, size, alignment)


__all__ = ["Layout", "Tail", "build_tail", "interface", "resource_variables"]
