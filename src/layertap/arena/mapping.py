"""Where every byte of a model lives on a target."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace

from layertap.arena.buffers import Buffer, aligned, extent, live_bytes, lower_bound
from layertap.arena.lifetimes import Lifetimes, Scratch, Step, lifetimes
from layertap.arena.memory_map import (
    Arena,
    Flash,
    Home,
    LayerFlash,
    MemoryMap,
    Overlaps,
    Peak,
    Placement,
)
from layertap.arena.node import Cell, element_size
from layertap.arena.planners import greedy
from layertap.arena.preparation import Prepared, prepare
from layertap.arena.shared import overlaps
from layertap.arena.tail import Layout, build_tail
from layertap.arena.target import Target
from layertap.tflite.edit import OFFLINE_PLAN, check_can_be_output
from layertap.tflite.flatbuffer import damaged
from layertap.tflite.graph import tensor_names
from layertap.tflite.layout import layout_of
from layertap.tflite.model import Subgraph, TfliteModel
from layertap.tflite.shapes import check_open_shapes

_LARGEST = 1 << 31
"""Bytes at which the interpreter's counting ends."""


def memory_map(model: TfliteModel, target: Target) -> MemoryMap:
    """Where every byte of ``model`` lives on ``target``.

    Raises CorruptModel for models that no interpreter could allocate: results of open size, sizes
    above 2 GB, a layout that does not fit, subgraphs that run one another without end. Raises
    SourceError where the interpreter would take a size that the file leaves open for a wrong one.
    """
    check_open_shapes(model)
    return _Map(model, target).build()


def tapped(model: TfliteModel, tensors: Iterable[int]) -> TfliteModel:
    """``model`` with ``tensors`` of its main subgraph as further outputs, as with_outputs makes it,
    without writing the file: a layout inside lets them lie anywhere.

    Raises PlanError or Untappable for tensors that cannot be outputs.
    """
    main = model.subgraphs[0]
    added = [i for i in dict.fromkeys(tensors) if i not in main.outputs]
    for i in added:
        check_can_be_output(model, 0, i)
    graph = replace(main, outputs=(*main.outputs, *added))
    held = model.metadata.get(OFFLINE_PLAN)
    data = model.data
    if held and added:
        layout_of(model)
        edited = bytearray(data)
        for i in added:
            struct.pack_into("<i", edited, held.start + 4 * (3 + i), -1)
        data = bytes(edited)
    return replace(model, data=data, subgraphs=(graph, *model.subgraphs[1:]))


class _Map:
    def __init__(self, model: TfliteModel, target: Target) -> None:
        self.model, self.target = model, target
        self.names = tensor_names(model)
        self.layout: Layout = layout_of(model)
        self.prepared: Prepared = prepare(model, target)
        self.scratch: list[Scratch] = self.prepared.scratch()
        self.lives: Lifetimes = lifetimes(model, self.scratch)
        self.unknown = [*self.prepared.unknown, *self._undefined()]

    def build(self) -> MemoryMap:
        placements = [*self._tensors(), *self._scratch()]
        planned = [i for i, p in enumerate(placements) if p.home == "arena"]
        buffers = [self._buffer(placements[i]) for i in planned]
        offsets = greedy(buffers)
        for i, offset in zip(planned, offsets, strict=True):
            placements[i] = replace(placements[i], offset=offset)
        found = overlaps(self.model, placements, self.lives.steps) if self.layout else Overlaps()
        return MemoryMap(
            self.target.name,
            self.target.version,
            self._arena(buffers, offsets, [placements[i] for i in planned]),
            self._flash(),
            tuple(placements),
            self.lives.steps,
            found,
        )

    def _undefined(self) -> list[str]:
        """The interpreter never works out how large the scratch buffers are of operators that
        nothing runs."""
        idle = {s.subgraph for s in self.scratch} - {step.subgraph for step in self.lives.steps}
        return [
            f"the scratch buffers of subgraph {i}, which nothing runs: the interpreter leaves "
            "their size open"
            for i in sorted(idle)
        ]

    def _tensors(self) -> list[Placement]:
        found = []
        for graph, cells in zip(self.model.subgraphs, self.prepared.cells, strict=True):
            makers: dict[int, int] = {}
            for number, operator in enumerate(graph.operators):
                for i in operator.outputs:
                    makers.setdefault(i, number)
            for cell in cells:
                found.append(self._tensor(graph, cell, makers.get(cell.tensor.index)))
        return found

    def _tensor(self, graph: Subgraph, cell: Cell, maker: int | None) -> Placement:
        tensor = cell.tensor
        size = cell.bytes if element_size(cell.dtype) else len(tensor.data)
        home = self._home(graph.index, cell, size)
        stored = {"flash": len(tensor.data), "persistent": aligned(size), "arena": aligned(size)}
        if tensor.index in graph.inputs:
            maker = None
        return Placement(
            name=self.names[graph.index][tensor.index],
            subgraph=graph.index,
            index=tensor.index,
            operator=maker,
            op=_made_by(graph, cell, maker),
            home=home,
            dtype=cell.dtype,
            shape=cell.shape,
            bytes=size,
            size=0 if cell.placed else stored.get(home, 0),
            offset=tensor.data.start if home == "flash" else None,
            alive=self.lives.tensors[graph.index][tensor.index] if home == "arena" else None,
            variable=tensor.variable,
        )

    def _home(self, subgraph: int, cell: Cell, size: int) -> Home:
        if cell.tensor.variable:
            return "arena" if self._fixed(subgraph, cell.tensor.index) is not None else "persistent"
        if cell.constant:
            return "flash"
        if cell.tensor.external:
            return "external"
        if cell.placed:
            return "persistent"
        return "arena" if size else "none"

    def _fixed(self, subgraph: int, index: int) -> int | None:
        return self.layout[subgraph][index] if self.layout else None

    def _scratch(self) -> list[Placement]:
        found = []
        counts: dict[tuple[int, int], int] = {}
        for request, alive in zip(self.scratch, self.lives.scratch, strict=True):
            place = (request.subgraph, request.operator)
            number = counts[place] = counts.get(place, -1) + 1
            name = f"{self._operator_name(*place)}/scratch:{number}"
            op = self.model.subgraphs[place[0]].operators[place[1]].name
            size = aligned(request.bytes)
            found.append(
                Placement(
                    name, place[0], None, place[1], op, "arena", "bytes", (request.bytes,),
                    request.bytes, size, alive=alive,
                )
            )  # fmt: skip
        return found

    def _operator_name(self, subgraph: int, number: int) -> str:
        """Operators are called after what they compute."""
        operator = self.model.subgraphs[subgraph].operators[number]
        for i in operator.outputs:
            if i >= 0:
                return self.names[subgraph][i]
        return f"{operator.name.lower()}_{number}"

    def _buffer(self, placement: Placement) -> Buffer:
        first, last = placement.alive or (0, 0)
        index = placement.index
        fixed = None if index is None else self._fixed(placement.subgraph, index)
        return Buffer(placement.size, first, last, fixed)

    def _arena(
        self, buffers: Sequence[Buffer], offsets: Sequence[int], placed: Sequence[Placement]
    ) -> Arena:
        head = extent(buffers, offsets)
        tail = build_tail(self.model, self.target, self.prepared, self.layout, len(buffers), head)
        minimum, reason = tail.needs.minimum()
        if minimum >= _LARGEST:
            raise damaged(f"it would need an arena of {minimum:,} bytes")
        return Arena(
            head=head,
            tail=tail.used,
            minimum=minimum,
            reason=reason,
            lower_bound=lower_bound(buffers),
            peak=self._peak(buffers, placed),
            sections=tail.sections(),
            unknown=tuple(self.unknown),
        )

    def _peak(self, buffers: Sequence[Buffer], placed: Sequence[Placement]) -> Peak | None:
        used = {scope: size for scope, size in live_bytes(buffers).items() if scope >= 0}
        if not used:
            return None
        scope = max(used, key=lambda scope: (used[scope], -scope))
        step = next(step for step in self.lives.steps if step.scope == scope)
        alive = [p.name for p, b in zip(placed, buffers, strict=True) if b.first <= scope <= b.last]
        return Peak(step, self._step_name(step), used[scope], tuple(alive))

    def _step_name(self, step: Step) -> str:
        if step.operator is None:
            return "INPUT"
        return self.model.subgraphs[step.subgraph].operators[step.operator].name

    def _flash(self) -> Flash:
        seen: set[range] = set()
        layers = []
        for graph in self.model.subgraphs:
            for number, operator in enumerate(graph.operators):
                held = {graph.tensors[i].data for i in operator.inputs if i >= 0}
                held = {data for data in held if data}
                if held:
                    layers.append(
                        LayerFlash(
                            self._operator_name(graph.index, number),
                            operator.name,
                            sum(len(data) for data in held - seen),
                            sum(len(data) for data in held & seen),
                        )
                    )
                seen |= held
        every = {t.data for graph in self.model.subgraphs for t in graph.tensors if t.data}
        return Flash(len(self.model.data), sum(len(data) for data in every), tuple(layers))


def _made_by(graph: Subgraph, cell: Cell, maker: int | None) -> str:
    """The operator that computes a tensor, or a word for where its value comes from."""
    if cell.tensor.variable:
        return "VARIABLE"
    if cell.tensor.index in graph.inputs:
        return "INPUT"
    if maker is not None:
        return graph.operators[maker].name
    return "CONSTANT" if cell.constant or cell.tensor.external else ""


__all__ = ["memory_map", "tapped"]
