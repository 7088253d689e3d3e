"""When each tensor and scratch buffer of a model is alive.

Time is counted in TensorFlow Lite Micro's allocation scopes: one for entering the main subgraph,
one for each operator, one for each subgraph that an operator runs. Source: tflite-micro,
tensorflow/lite/micro/micro_allocation_info.cc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layertap.arena.buffers import UNUSED
from layertap.tflite.flatbuffer import damaged
from layertap.tflite.model import Operator, TfliteModel

MAX_SCOPES = 1 << 16
"""Scopes a model may have; subgraphs that run one another could make a small file take forever."""

MAX_TOUCHES = 1 << 22
"""Times that tensors may be named in all of them, for the same reason."""

MAX_DEPTH = 64
"""Subgraphs that may be running inside one another."""

_RUNS_SUBGRAPHS = frozenset({"IF", "WHILE", "CALL_ONCE"})
"""The operators whose subgraphs the micro interpreter plans."""

Lifetime = tuple[int, int]
"""First and last scope, both included; (UNUSED, UNUSED) for what nothing touches."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """A scratch buffer of ``bytes`` that an operator's kernel asks for."""

    subgraph: int
    operator: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Step:
    """What runs in a scope: operator ``operator`` of ``subgraph``, or with None its entry."""

    scope: int
    subgraph: int
    operator: int | None


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """``tensors`` by subgraph and index, ``scratch`` in the order of the requests."""

    tensors: tuple[tuple[Lifetime, ...], ...]
    scratch: tuple[Lifetime, ...]
    steps: tuple[Step, ...]


def lifetimes(model: TfliteModel, scratch: Sequence[Scratch] = ()) -> Lifetimes:
    """When everything in ``model`` is alive.

    Raises CorruptModel for subgraphs that run themselves, or each other too often to count.
    """
    walk = _Walk(model, scratch)
    walk.subgraph(0)
    return Lifetimes(
        tuple(
            tuple(zip(first, last, strict=True))
            for first, last in zip(walk.first, walk.last, strict=True)
        ),
        tuple(walk.scratch),
        tuple(walk.steps),
    )


class _Walk:
    def __init__(self, model: TfliteModel, scratch: Sequence[Scratch]) -> None:
        self.model = model
        self.first = [[UNUSED] * len(subgraph.tensors) for subgraph in model.subgraphs]
        self.last = [[UNUSED] * len(subgraph.tensors) for subgraph in model.subgraphs]
        self.scratch: list[Lifetime] = [(UNUSED, UNUSED)] * len(scratch)
        self.asked: dict[tuple[int, int], list[int]] = {}
        for number, request in enumerate(scratch):
            self.asked.setdefault((request.subgraph, request.operator), []).append(number)
        self.scope = self.touches = 0
        self.steps: list[Step] = []
        self.entered: list[int] = []

    def subgraph(self, index: int) -> None:
        if index in self.entered:
            raise damaged(f"subgraph {index} runs itself")
        if len(self.entered) == MAX_DEPTH:
            raise damaged(f"its subgraphs run one another more than {MAX_DEPTH} deep")
        self.entered.append(index)
        self._step(index, None)
        graph = self.model.subgraphs[index]
        self._count(len(graph.inputs) + len(graph.outputs))
        for tensor in graph.inputs:
            self._born(index, tensor)
            self.last[index][tensor] = self.scope
        for number, operator in enumerate(graph.operators):
            self.scope += 1
            self._operator(index, number, operator)
        for tensor in graph.outputs:
            self._born(index, tensor)
            self.last[index][tensor] = self.scope
        self.entered.pop()

    def _operator(self, index: int, number: int, operator: Operator) -> None:
        self._step(index, number)
        self._count(len(operator.inputs) + len(operator.outputs))
        outputs = [tensor for tensor in operator.outputs if tensor >= 0]
        for tensor in outputs:
            self._born(index, tensor)
        start = self.scope
        planned = operator.name in _RUNS_SUBGRAPHS and not operator.narrow
        for called in operator.calls if planned else ():
            self.scope += 1
            self.subgraph(called)
        for tensor in (*operator.inputs, *outputs):
            if tensor >= 0:
                self.last[index][tensor] = self.scope
        for request in self.asked.get((index, number), ()):
            born = self.scratch[request][0]
            self.scratch[request] = (start if born == UNUSED else born, self.scope)

    def _born(self, index: int, tensor: int) -> None:
        if self.first[index][tensor] == UNUSED:
            self.first[index][tensor] = self.scope

    def _count(self, touches: int) -> None:
        self.touches += touches
        if self.touches > MAX_TOUCHES:
            raise damaged(f"its subgraphs run one another and name {MAX_TOUCHES:,} tensors so")

    def _step(self, subgraph: int, operator: int | None) -> None:
        if len(self.steps) >= MAX_SCOPES:
            raise damaged(f"its subgraphs run one another more than {MAX_SCOPES:,} times")
        self.steps.append(Step(self.scope, subgraph, operator))


__all__ = ["Lifetime", "Lifetimes", "Scratch", "Step", "lifetimes"]
