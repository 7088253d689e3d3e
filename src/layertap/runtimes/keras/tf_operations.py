"""The single operations of a TensorFlow graph, by the layer call that made them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from layertap.core.following import Shape, Step, Trail
from layertap.runtimes.keras.recorder import Frame, Recorder
from layertap.runtimes.keras.tf_loops import LOOPS, inner_graphs
from layertap.runtimes.keras.user_lines import user_line
from layertap.runtimes.tfgraph.steps import step

_PASSIVE = frozenset(
    {
        "Assert",
        "Const",
        "Identity",
        "IdentityN",
        "NoOp",
        "Placeholder",
        "PlaceholderWithDefault",
        "ReadVariableOp",
        "VarHandleOp",
    }
)
"""Operations that compute nothing: constants, weights (taps by themselves), mere passing on. Nor do
loops, but for what is in them."""


class GraphOperations:
    """Tells ``recorder`` of the operations that appear in the graphs of one trace, once each.

    ``sources``: look up the lines that they come from.
    """

    def __init__(self, recorder: Recorder, *, sources: bool) -> None:
        self._recorder, self._sources = recorder, sources
        self._seen: dict[Any, int] = {}
        self._muted = False
        self._skip(tf.compat.v1.get_default_graph())

    def turn(self) -> None:
        graph = tf.compat.v1.get_default_graph()
        frame = self._recorder.frame
        if self._muted or frame is None:
            self._skip(graph)
        else:
            self._take(graph, frame)

    def enter(self, frame: Frame) -> None: ...

    def leave(self, frame: Frame) -> None: ...

    @contextmanager
    def muting(self, on: bool) -> Iterator[None]:
        self.turn()
        before, self._muted = self._muted, on
        try:
            yield
        finally:
            self.turn()
            self._muted = before

    def _skip(self, graph: Any) -> None:
        self._seen[graph] = len(graph.get_operations())

    def _take(self, graph: Any, frame: Frame) -> None:
        operations = graph.get_operations()
        start = self._seen.get(graph, 0)
        self._seen[graph] = len(operations)
        for operation in operations[start:]:
            for inner in inner_graphs(operation):
                self._take(inner, frame)
            if operation.type not in _PASSIVE and operation.type not in LOOPS:
                self._tell(operation, frame)

    def _tell(self, operation: Any, frame: Frame) -> None:
        slash = "/" if frame.name else ""
        source = user_line(_lines(operation)) if self._sources else ""
        for i, tensor in enumerate(operation.outputs):
            if tensor.dtype in (tf.resource, tf.variant):
                continue
            suffix = f"{slash}{operation.type}" + (f":{i}" if i else "")
            self._recorder.operation(
                frame, suffix, operation.type, tensor, list(operation.inputs), source
            )


def trail(graph: Any, tensors: Sequence[Any]) -> Trail | None:
    """The operations of ``graph``, which is given ``tensors``, as a trail whose keys are the names
    of tensors in it; None where there is no such graph."""
    if not all(getattr(tensor, "graph", None) is graph for tensor in tensors):
        return None
    given = {tensor.name: _shape(tensor) for tensor in tensors}
    steps = [_step(one) for one in graph.get_operations() if _given(one) not in given]
    return Trail(given, steps)


def _given(operation: Any) -> str:
    return operation.outputs[0].name if operation.type == "Placeholder" else ""


def _step(operation: Any) -> Step:
    inputs = operation.inputs
    return step(
        operation.type,
        tuple(tensor.name for tensor in inputs),
        tuple((tensor.name, _shape(tensor)) for tensor in operation.outputs),
        inputs[0].shape.rank if len(inputs) else None,
        lambda number: tf.get_static_value(inputs[number]),
        lambda name: operation.get_attr(name) if name in operation.node_def.attr else None,
    )


def _shape(tensor: Any) -> Shape | None:
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())


def _lines(operation: Any) -> Iterator[tuple[str, int]]:
    for frame in reversed(operation.traceback):
        yield frame.filename, frame.lineno
