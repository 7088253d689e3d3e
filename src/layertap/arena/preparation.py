"""A model as the interpreter prepares it: what each kernel asks for, and the shapes it leaves.

Source: tflite-micro, tensorflow/lite/micro/micro_interpreter_graph.cc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layertap.arena import kernels
from layertap.arena.lifetimes import Scratch
from layertap.arena.node import Cell, Event, Node, Request, element_size
from layertap.arena.target import REFERENCE, Target
from layertap.tflite.flatbuffer import damaged
from layertap.tflite.model import COMPRESSION, Subgraph, TfliteModel
from layertap.tflite.schema import OPERATORS


@dataclass(frozen=True, slots=True)
class Prepared:
    """``cells`` are the tensors by subgraph and index. ``nodes`` are the operators in the order in
    which they are prepared, ``first`` what each kernel asks for before any kernel prepares.
    ``unknown`` says what no table covers."""

    cells: tuple[tuple[Cell, ...], ...]
    nodes: tuple[Node, ...]
    first: tuple[tuple[Event, ...], ...]
    unknown: tuple[str, ...]

    def scratch(self) -> list[Scratch]:
        """The buffers that kernels want while they run, in the order of their requests."""
        return [
            Scratch(node.subgraph, node.number, event.bytes)
            for node in self.nodes
            for event in node.events
            if isinstance(event, Request)
        ]


def prepare(model: TfliteModel, target: Target) -> Prepared:
    """Prepare every operator of ``model``.

    Raises CorruptModel for operators that no kernel could prepare, and for results of open size.
    """
    cells = tuple(
        tuple(Cell(tensor, tensor.shape) for tensor in graph.tensors) for graph in model.subgraphs
    )
    allocated: set[str] = set()
    nodes = [
        node
        for graph in model.subgraphs
        for node in _nodes(model.data, target, graph, cells[graph.index], allocated)
    ]
    understood = [kernels.known(node.name, target.kernels) for node in nodes]
    first = []
    for node, understands in zip(nodes, understood, strict=True):
        if understands:
            kernels.init(node)
        first.append(tuple(node.events))
        node.events = []
    for node, understands in zip(nodes, understood, strict=True):
        if understands:
            kernels.prepare(node)
        _check_results(node)
    unknown = _unknown_kernels(nodes, understood, target) + _unknown_tensors(cells)
    unknown += [
        f"{node.name} with {why}, which tflite-micro refuses"
        for node in nodes
        for why in (*node.refusals, *_intermediates(node, cells[node.subgraph]))
    ]
    if COMPRESSION in model.metadata:
        unknown.append("its constants are compressed, which is not worked out yet")
    if target.guess:
        unknown.append(target.guess)
    return Prepared(cells, tuple(nodes), tuple(first), tuple(dict.fromkeys(unknown)))


def _nodes(
    data: bytes, target: Target, graph: Subgraph, cells: Sequence[Cell], allocated: set[str]
) -> list[Node]:
    names: dict[int, str] = {}
    return [
        Node(
            target=target,
            data=data,
            subgraph=graph.index,
            number=number,
            operator=operator,
            inputs=[cells[i] if i >= 0 else None for i in operator.inputs],
            outputs=[cells[i] if i >= 0 else None for i in operator.outputs],
            names=names,
            allocated=allocated,
        )
        for number, operator in enumerate(graph.operators)
    ]


def _check_results(node: Node) -> None:
    """The interpreter refuses results of open size, once the kernel had its say."""
    for cell in node.outputs:
        if cell is None or cell.shape == (0,):
            continue
        if any(size <= 0 for size in cell.shape):
            raise damaged(
                f"operator {node.number} of subgraph {node.subgraph} ({node.name}) computes "
                f"{cell.tensor.name!r} of shape {list(cell.shape)}, a size that is not fixed"
            )


def _unknown_kernels(
    nodes: Sequence[Node], understood: Sequence[bool], target: Target
) -> list[str]:
    strange = [node.name for node, known in zip(nodes, understood, strict=True) if not known]
    return [_why(name, target) for name in dict.fromkeys(strange)]


def _why(name: str, target: Target) -> str:
    if kernels.known(name, REFERENCE):
        return f"what the {target.kernels} kernel of {name} asks for"
    if name in OPERATORS:
        return f"{name}, for which tflite-micro has no kernel"
    return f"what the kernel of the custom operator {name} asks for"


def _intermediates(node: Node, cells: Sequence[Cell]) -> list[str]:
    """The interpreter has no memory for results that a kernel only uses itself."""
    sized = [i for i in node.operator.intermediates if i >= 0 and cells[i].elements]
    return [f"intermediate tensors ({len(sized)})"] if sized else []


def _unknown_tensors(cells: Sequence[Sequence[Cell]]) -> list[str]:
    kinds = {cell.dtype for graph in cells for cell in graph if element_size(cell.dtype) is None}
    return [f"tensors of {kind}, which tflite-micro refuses" for kind in sorted(kinds)]


__all__ = ["Prepared", "prepare"]
