"""The tap points of a .tflite file: every tensor of every subgraph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from layertap.core.dtypes import numpy_dtype
from layertap.core.feeds import InputSpec
from layertap.core.graph import Graph, Kind, Per, TapPoint
from layertap.core.quantization import Quantization
from layertap.tflite.model import Operator, Subgraph, Tensor, TfliteModel
from layertap.tflite.names import unique_names

MAIN = 0
"""The subgraph that interpreters run unless told otherwise, and whose tensors have plain names."""

DATA_DEPENDENT = frozenset({"WHERE", "UNIQUE", "RANGE", "NON_MAX_SUPPRESSION_V4"}) | {
    "NON_MAX_SUPPRESSION_V5"
}
"""Operators whose first output axis counts what they found, never samples."""

_PLACEHOLDERS = {"input": "INPUT", "argument": "INPUT", "state": "VARIABLE", "weight": "CONSTANT"}
"""What stands for the operator of a tensor that no operator computes."""

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TapGraph:
    """The graph, the inputs of the main subgraph in its order, and its batch size (None when
    the inputs share no first axis)."""

    graph: Graph
    inputs: tuple[InputSpec, ...]
    batch: int | None


def tap_graph(
    model: TfliteModel,
    *,
    run: int = MAIN,
    dynamic: bool = False,
    readable: frozenset[str] | None = None,
    inside: bool = False,
) -> TapGraph:
    """All tensors of ``model`` as tap points in execution order.

    Per subgraph: inputs, what the operators compute, state, weights, and tensors that nothing
    computes. ``run`` is the subgraph that is run. ``dynamic=True`` leaves sizes open (None) that
    the file declares open, except the batch axis, for runtimes that can resize tensors.
    ``readable`` are the element types that a runtime hands out, None for all. ``inside=True`` is
    for runtimes that also read the subgraphs that operators run: a tensor of these has one value
    for each time that its subgraph was run, stacked on a first axis of open size.
    """
    named = tensor_names(model)
    main = model.subgraphs[run]
    batch = _batch(main)
    taps: list[TapPoint] = []
    callers = _callers(model)
    for subgraph, own in zip(model.subgraphs, named, strict=True):
        is_main, called = subgraph is main, inside and subgraph.index in callers
        reason = "" if is_main or called else _not_run(model, subgraph, callers)
        taps += _Tapper(subgraph, own, batch, dynamic, is_main, reason, readable).taps()
    graph = Graph(taps)
    inputs = (graph[named[run][i]] for i in dict.fromkeys(main.inputs))
    specs = (InputSpec(t.name, t.dtype, t.shape, t.quantization) for t in inputs)
    return TapGraph(graph, tuple(specs), batch)


def tensor_names(model: TfliteModel) -> list[list[str]]:
    """The name of each tensor's tap point, by subgraph and index."""
    names = iter(unique_names([name for graph in model.subgraphs for name in _wanted(graph)]))
    return [[next(names) for _ in graph.tensors] for graph in model.subgraphs]


def _wanted(subgraph: Subgraph) -> Iterator[str]:
    """The names that the tensors should have, which may be twice the same."""
    makers: dict[int, str] = {}
    for operator in subgraph.operators:
        for i in operator.outputs:
            makers.setdefault(i, operator.name.lower())
    before = "" if subgraph.index == MAIN else f"s{subgraph.index}/"
    for tensor in subgraph.tensors:
        yield before + (tensor.name or f"{makers.get(tensor.index, 'tensor')}_{tensor.index}")


def _batch(main: Subgraph) -> int | None:
    shapes = [main.tensors[i].shape for i in main.inputs]
    first = {shape[0] if shape else 0 for shape in shapes}
    size = first.pop() if len(first) == 1 else 0
    return size if size > 0 else None


def _callers(model: TfliteModel) -> dict[int, str]:
    """The first operator that runs each subgraph, by the subgraph's number."""
    found: dict[int, str] = {}
    for caller in model.subgraphs:
        for operator in caller.operators:
            for called in operator.calls:
                found.setdefault(called, operator.name)
    return found


def _not_run(model: TfliteModel, subgraph: Subgraph, callers: Mapping[int, str]) -> str:
    """Why the tensors of a subgraph that is only called, or not run, cannot be read."""
    if subgraph.index in callers:
        return (
            f"it lives inside a subgraph that {callers[subgraph.index]} runs, any number of times; "
            "only tensors outside can be made outputs"
        )
    for signature in model.signatures:
        if signature.subgraph == subgraph.index:
            return (
                f"it belongs to the signature {signature.key!r}, which is not the one that is run"
            )
    return "it belongs to a subgraph that nothing runs"


class _Tapper:
    """The tap points of one subgraph."""

    def __init__(
        self,
        subgraph: Subgraph,
        names: Sequence[str],
        batch: int | None,
        dynamic: bool,
        is_main: bool,
        why: str,
        readable: frozenset[str] | None,
    ) -> None:
        self.subgraph, self.names, self.batch, self.dynamic = subgraph, names, batch, dynamic
        self.is_main, self.why, self.readable = is_main, why, readable
        self.inputs = frozenset(subgraph.inputs)
        self.outputs = frozenset(subgraph.outputs)
        self.consumed = {i for operator in subgraph.operators for i in operator.inputs}
        self.producers: dict[int, list[Operator]] = {}
        for operator in subgraph.operators:
            for i in dict.fromkeys(operator.outputs):
                if i >= 0:
                    self.producers.setdefault(i, []).append(operator)
        self.operands: dict[int, tuple[str, ...]] = {}
        opened = (subgraph.tensors[i].signature for i in subgraph.inputs)
        self.open_batch = any(signature and signature[0] < 0 for signature in opened)

    def taps(self) -> Iterator[TapPoint]:
        tensors = self.subgraph.tensors
        kinds = [self._kind(tensor) for tensor in tensors]
        inputs = dict.fromkeys(self.subgraph.inputs)
        computed = [i for i in self.producers if i not in inputs and kinds[i] != "state"]
        listed = {*inputs, *computed}
        rest = [i for i in range(len(tensors)) if i not in listed]
        for kind in ("state", "weight", "activation", "output"):
            computed += [i for i in rest if kinds[i] == kind]
        for i in (*inputs, *computed):
            yield self._tap(tensors[i], kinds[i])

    def _kind(self, tensor: Tensor) -> Kind:
        i = tensor.index
        if i in self.inputs:
            return "input" if self.is_main else "argument"
        if tensor.variable:
            return "state"
        empty = 0 in tensor.shape and i in self.consumed
        if i not in self.producers and (tensor.data or tensor.external or empty):
            return "weight"
        returned = i in self.outputs and self.is_main
        return "output" if returned else "activation"

    def _tap(self, tensor: Tensor, kind: Kind) -> TapPoint:
        producers = self.producers.get(tensor.index, [])
        makers = [] if tensor.index in self.inputs else producers
        operands = self._operands(makers[0]) if makers else ()
        shape, per = self._shape(tensor, kind)
        return TapPoint(
            name=self.names[tensor.index],
            kind=kind,
            op=makers[0].name if makers else _PLACEHOLDERS.get(kind, ""),
            dtype=tensor.dtype,
            shape=shape,
            index=tensor.index,
            subgraph=self.subgraph.index,
            quantization=self._quantization(tensor, kind),
            per=per,
            operands=operands,
            untappable=self._untappable(tensor, kind, makers),
        )

    def _operands(self, operator: Operator) -> tuple[str, ...]:
        """Names of what ``operator`` reads; the same tuple for each of its outputs."""
        if id(operator) not in self.operands:
            names = (self.names[i] for i in operator.inputs if i >= 0)
            self.operands[id(operator)] = tuple(dict.fromkeys(names))
        return self.operands[id(operator)]

    def _quantization(self, tensor: Tensor, kind: Kind) -> Quantization | None:
        found = tensor.quantization
        if found is None or not self._is_stacked(kind):
            return found
        return replace(found, axis=found.axis + 1)

    def _is_stacked(self, kind: Kind) -> bool:
        """Whether there is one value for each time that the subgraph is run."""
        return not (self.is_main or self.why or kind == "weight")

    def _shape(self, tensor: Tensor, kind: Kind) -> tuple[Shape, Per]:
        if kind == "weight":
            return tensor.shape, "run"
        if self._is_stacked(kind):
            return (None, *(size if size >= 0 else None for size in tensor.shape)), "batch"
        producers = self.producers.get(tensor.index, [])
        counts_samples = not any(op.name in DATA_DEPENDENT for op in producers) and (
            self.open_batch or not tensor.signature or tensor.signature[0] >= 0
        )
        is_sample = counts_samples and self.batch is not None and tensor.shape[:1] == (self.batch,)
        sizes: list[int | None] = [size if size >= 0 else None for size in tensor.shape]
        if self.dynamic and tensor.signature:
            opened = [i for i, size in enumerate(tensor.signature) if size < 0]
            for i in opened:
                if i > 0 or not is_sample:
                    sizes[i] = None
        return tuple(sizes), "sample" if is_sample else "batch"

    def _untappable(self, tensor: Tensor, kind: Kind, producers: Sequence[Operator]) -> str:
        if numpy_dtype(tensor.dtype) is None:
            return f"it holds {tensor.dtype}, not numbers"
        if kind == "weight":
            return _unreadable_weight(tensor)
        if self.why:
            return self.why
        if self.readable is not None and tensor.dtype not in self.readable:
            return f"the runtime hands out no {tensor.dtype}"
        if kind in ("activation", "output") and not producers:
            return "no operator computes it"
        if len(producers) > 1:
            return "more than one operator writes it"
        return ""


def _unreadable_weight(tensor: Tensor) -> str:
    if tensor.external:
        return "its value is kept in another file"
    if tensor.sparse:
        return "it is stored in a sparse format"
    return "" if tensor.data or math.prod(tensor.shape) == 0 else "the file holds no value for it"


__all__ = ["MAIN", "TapGraph", "tap_graph", "tensor_names"]
