"""Values inside the loops of a TensorFlow graph, brought out: each iteration pushes its value onto
a list that the loop carries along, as TensorFlow itself does for gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

LOOPS = ("While", "StatelessWhile")
BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")


def loop_of(graph: Any) -> Any:
    """The operation whose loop's body is ``graph``, or None."""
    outer = getattr(graph, "outer_graph", None)
    if outer is None or not outer.building_function:
        return None
    found = (op for op in outer.get_operations() if op.type in LOOPS)
    return next((op for op in found if getattr(op, "_body_graph", None) is graph), None)


class Places:
    """Where tensors are, seen from the graph ``outermost``."""

    def __init__(self, outermost: Any) -> None:
        self._outermost = outermost
        self._known: dict[Any, tuple[int, str]] = {}

    def of(self, tensor: Any) -> tuple[int, str]:
        """In how many loops ``tensor`` is computed; if it cannot be brought out, why."""
        graph = getattr(tensor, "graph", self._outermost) if tf.is_tensor(tensor) else None
        if graph is None or not graph.building_function:
            return 0, ""
        return self._of_graph(graph)

    def _of_graph(self, graph: Any) -> tuple[int, str]:
        if graph is self._outermost:
            return 0, ""
        if graph not in self._known:
            loop = loop_of(graph)
            if loop is None:
                self._known[graph] = 0, _place(graph)
            else:
                loops, reason = self._of_graph(loop.graph)
                self._known[graph] = loops + 1, reason
        return self._known[graph]


def _place(graph: Any) -> str:
    outer = getattr(graph, "outer_graph", None)
    for op in outer.get_operations() if outer is not None else ():
        if op.type in BRANCHES and any(inner is graph for inner in inner_graphs(op)):
            return "it is computed inside a conditional branch, which not every run takes"
        if op.type in LOOPS and getattr(op, "_cond_graph", None) is graph:
            return "it is computed in the condition of a loop"
    return "it is computed inside a nested compiled function (tf.function, vectorized_map)"


def inner_graphs(op: Any) -> Iterator[Any]:
    """The graphs of the body of a loop, or of the branches of a conditional."""
    names = ["_body_graph"] if op.type in LOOPS else []
    if op.type in ("If", "StatelessIf"):
        names = ["_true_graph", "_false_graph"]
    if op.type in ("Case", "StatelessCase"):
        names = [f"_branch_graph_{i}" for i in range(len(op.get_attr("branches")))]
    yield from (getattr(op, name) for name in names if hasattr(op, name))


def brought_out(tensors: Sequence[Any], outermost: Any) -> list[Any]:
    """``tensors``, those inside loops stacked over the iterations: (outer, ..., inner, *shape)."""
    found, places = list(tensors), Places(outermost)
    while True:
        inside: dict[int, tuple[Any, int, list[int]]] = {}
        for i, tensor in enumerate(found):
            loops, _ = places.of(tensor)
            if loops:
                inside.setdefault(id(tensor.graph), (tensor.graph, loops, []))[2].append(i)
        if not inside:
            return found
        # Inner loops first: what they give is a value of the loop around them.
        graph, _, numbers = max(inside.values(), key=lambda one: one[1])
        stacked = _accumulate(loop_of(graph), [found[i] for i in numbers])
        for i, tensor in zip(numbers, stacked, strict=True):
            found[i] = tensor


def _accumulate(loop: Any, tensors: list[Any]) -> list[Any]:
    """``tensors`` of the body of ``loop``, stacked, in the graph that ``loop`` is in."""
    body, cond = loop._body_graph, loop._cond_graph
    before = len(loop.outputs)
    lists = []
    for tensor in tensors:
        with loop.graph.as_default(), tf.control_dependencies(None):
            empty = tf.raw_ops.EmptyTensorList(
                element_shape=_sizes(tensor.shape), max_num_elements=-1, element_dtype=tensor.dtype
            )
        with body.as_default():
            pushed = tf.raw_ops.TensorListPushBack(input_handle=empty, tensor=tensor)
        with cond.as_default():
            cond.capture(empty)
        body.outputs.append(pushed)
        lists.append(empty)
    _rewrite(loop, lists, len(tensors))
    with loop.graph.as_default():
        return [
            _stacked(handle, tensor)
            for handle, tensor in zip(loop.outputs[before:], tensors, strict=True)
        ]


def _stacked(handle: Any, tensor: Any) -> Any:
    return tf.raw_ops.TensorListStack(
        input_handle=handle, element_shape=_sizes(tensor.shape), element_dtype=tensor.dtype
    )


def _sizes(shape: Any) -> Any:
    if shape.rank is None:
        return tf.constant(-1)
    return tf.constant([-1 if size is None else size for size in shape], tf.int32)


def _rewrite(loop: Any, inputs: list[Any], count: int) -> None:
    """Make ``loop`` take ``inputs`` and return the last ``count`` outputs of its body too."""
    from tensorflow.python.ops import control_flow_util_v2 as functions

    body, cond = loop._body_graph, loop._cond_graph
    for graph in (body, cond):
        graph.name += "_layertap"
    loop._set_func_attr("cond", functions.create_new_tf_function(cond))
    loop._set_func_attr("body", functions.create_new_tf_function(body))
    loop._set_type_list_attr("T", body.output_types)
    loop._set_shape_list_attr("output_shapes", body.output_shapes)
    loop._add_while_inputs(inputs)
    new = body.outputs[-count:]
    loop._add_outputs([tensor.dtype for tensor in new], [tensor.shape for tensor in new])
    number = attr_value_pb2.AttrValue(i=len(loop.outputs))
    loop._set_attr("_num_original_outputs", number)
