"""Values inside loops and branches, brought out: each execution pushes its value onto a list that
is threaded through the loops and branches around it and returned by the outermost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2, tensor_shape_pb2

from layertap.core.dtypes import Array
from layertap.runtimes.tfgraph.infer import Path, Type
from layertap.runtimes.tfgraph.scope import ARGUMENT, LOOPS, Node, Ref, Scope

VARIANT = tf.variant.as_datatype_enum
_TYPE_LISTS: Mapping[str, tuple[str, ...]] = {
    "While": ("T",),
    "StatelessWhile": ("T",),
    "If": ("Tin", "Tout"),
    "StatelessIf": ("Tin", "Tout"),
    "Case": ("Tin", "Tout"),
    "StatelessCase": ("Tin", "Tout"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor anywhere in a graph: the scope it is in, and its node and output there."""

    path: Path
    ref: Ref


@dataclass(frozen=True, slots=True)
class Listed:
    """Tensors that together hold the values of all executions of one place, in order.

    One tensor: the values, stacked. Three, where the shape may change between executions: all
    elements, all shapes, and the rank of each.
    """

    refs: tuple[Ref, ...]

    def values(self, arrays: Sequence[Array]) -> list[Array]:
        """The value of each execution, from arrays in the order of ``refs``."""
        if len(arrays) == 1:
            return list(arrays[0])
        elements, sizes, ranks = arrays
        found: list[Array] = []
        start = axis = 0
        for rank in ranks:
            shape = tuple(int(size) for size in sizes[axis : axis + int(rank)])
            count = int(np.prod(shape, dtype=np.int64))
            found.append(elements[start : start + count].reshape(shape))
            start, axis = start + count, axis + int(rank)
        return found


@dataclass(frozen=True, slots=True)
class Push:
    """What one list gathers of a tensor of dtype ``source``; ``form``: the value itself, its
    elements or its shape."""

    path: Path
    ref: Ref
    source: Any
    form: str

    @property
    def dtype(self) -> Any:
        return tf.int64 if self.form == "shape" else self.source


def expose(scope: Scope, wanted: Sequence[tuple[Place, Type]]) -> tuple[Scope, list[Listed]]:
    """``scope`` with further nodes that list the values at each place inside it, in order."""
    pushes: list[Push] = []
    spans: list[range] = []
    for place, kind in wanted:
        new = [Push(place.path, place.ref, kind.dtype, form) for form in forms_of(kind.shape)]
        spans.append(range(len(pushes), len(pushes) + len(new)))
        pushes += new
    build = Builder(dict(scope.nodes))
    lists = _thread(build, pushes, [build.empty_list(push.dtype) for push in pushes])
    listed = [
        build.listed([lists[i] for i in span], kind)
        for (_, kind), span in zip(wanted, spans, strict=True)
    ]
    return replace(scope, nodes=build.nodes), listed


def forms_of(shape: tuple[int | None, ...] | None) -> tuple[str, ...]:
    """What lists are needed for values of a shape: one if it is fixed, else two."""
    fixed = shape is not None and None not in shape
    return ("value",) if fixed else ("elements", "shape")


class Builder:
    """Adds nodes to those of a scope, under names that no graph uses."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self._number = 0

    def add(
        self,
        op: str,
        inputs: Sequence[Ref],
        controls: Sequence[str] = (),
        types: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> Ref:
        """A new node with these attributes (``types``: those that are dtypes); its output 0."""
        proto = node_def_pb2.NodeDef()
        for key, dtype in (types or {}).items():
            proto.attr[key].type = dtype.as_datatype_enum
        for key, value in attributes.items():
            if isinstance(value, bool):
                proto.attr[key].b = value
            elif isinstance(value, int):
                proto.attr[key].i = value
            elif isinstance(value, str):
                proto.attr[key].s = value.encode()
            else:
                proto.attr[key].CopyFrom(value)
        return self.place(op, inputs, controls, proto)

    def place(self, op: str, inputs: Sequence[Ref], controls: Sequence[str], proto: Any) -> Ref:
        name = f"layertap/{self._number}"
        while name in self.nodes:
            self._number += 1
            name = f"layertap/{self._number}"
        self.nodes[name] = Node(name, op, tuple(inputs), tuple(controls), proto)
        return name, 0

    def constant(self, value: Any, dtype: Any, controls: Sequence[str] = ()) -> Ref:
        proto = node_def_pb2.NodeDef()
        proto.attr["dtype"].type = dtype.as_datatype_enum
        proto.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype))
        return self.place("Const", (), controls, proto)

    def empty_list(self, dtype: Any) -> Ref:
        types = {"element_dtype": dtype, "shape_type": tf.int32}
        anything = self.constant(-1, tf.int32)
        return self.add("EmptyTensorList", (anything, self.constant(-1, tf.int32)), types=types)

    def pushed(self, onto: Ref, push: Push) -> Ref:
        value = push.ref
        if push.form == "shape":
            types = {"T": push.source, "out_type": tf.int64}
            value = self.add("Shape", (value,), types=types)
        elif push.form == "elements":
            # Where the value is: a constant outside of its loop could not be combined with it.
            flat = self.constant([-1], tf.int32, (value[0],))
            value = self.add("Reshape", (value, flat), types={"T": push.dtype, "Tshape": tf.int32})
        return self.add("TensorListPushBack", (onto, value), types={"element_dtype": push.dtype})

    def listed(self, lists: Sequence[Ref], kind: Type) -> Listed:
        """The lists that :func:`forms_of` asks for as tensors."""
        if len(lists) == 1:
            return Listed((self.stacked(lists[0], kind.dtype, kind.shape),))
        elements, _ = self.joined(lists[0], kind.dtype)
        return Listed((elements, *self.joined(lists[1], tf.int64)))

    def stacked(self, values: Ref, dtype: Any, shape: Any) -> Ref:
        known = self.constant(np.array(shape, np.int32), tf.int32)
        types = {"element_dtype": dtype}
        return self.add("TensorListStack", (values, known), types=types, num_elements=-1)

    def joined(self, values: Ref, dtype: Any) -> tuple[Ref, Ref]:
        """Vectors, put one behind the other, and the length of each."""
        proto = node_def_pb2.NodeDef()
        proto.attr["element_dtype"].type = dtype.as_datatype_enum
        proto.attr["shape_type"].type = tf.int32.as_datatype_enum
        shape = self.constant([-1], tf.int32)
        leading = self.constant(np.empty(0, np.int64), tf.int64)
        name, _ = self.place("TensorListConcatV2", (values, shape, leading), (), proto)
        return (name, 0), (name, 1)


def _thread(build: Builder, pushes: Sequence[Push], lists: Sequence[Ref]) -> list[Ref]:
    """Push what is in this scope, pass the other lists through the nodes that run inner scopes;
    returns the lists as they are afterwards."""
    after = list(lists)
    inner: dict[str, list[int]] = {}
    for i, push in enumerate(pushes):
        if push.path:
            inner.setdefault(push.path[0][0], []).append(i)
        else:
            after[i] = build.pushed(lists[i], push)
    for name, chosen in inner.items():
        node = build.nodes[name]
        first = _output_count(node)
        given = [pushes[i] for i in chosen]
        build.nodes[name] = _passing(node, given, [lists[i] for i in chosen])
        for number, i in enumerate(chosen):
            after[i] = (name, first + number)
    return after


def _output_count(node: Node) -> int:
    return len(node.proto.attr[_TYPE_LISTS[node.op][-1]].list.type)


def _passing(node: Node, pushes: Sequence[Push], lists: Sequence[Ref]) -> Node:
    """A loop or branch that takes lists and returns them with what its scopes pushed."""
    proto = node_def_pb2.NodeDef()
    proto.CopyFrom(node.proto)
    for key in _TYPE_LISTS[node.op]:
        proto.attr[key].list.type.extend([VARIANT] * len(lists))
    shapes = proto.attr["output_shapes"].list.shape
    if shapes:
        shapes.extend([tensor_shape_pb2.TensorShapeProto()] * len(lists))
    branches = []
    for number, branch in enumerate(node.branches):
        condition = node.op in LOOPS and number == 0
        here = [
            replace(push, path=push.path[1:]) if push.path[0][1] == number else None
            for push in pushes
        ]
        branches.append(_taking(branch, here, returns=not condition))
    return replace(node, inputs=(*node.inputs, *lists), proto=proto, branches=tuple(branches))


def _taking(scope: Scope, pushes: Sequence[Push | None], *, returns: bool) -> Scope:
    build = Builder(dict(scope.nodes))
    variant = node_def_pb2.NodeDef()
    variant.attr["dtype"].type = VARIANT
    args = [build.place(ARGUMENT, (), (), variant) for _ in pushes]
    after = list(args)
    chosen = [i for i, push in enumerate(pushes) if push is not None]
    if returns:
        lists = [args[i] for i in chosen]
        for i, ref in zip(chosen, _thread(build, [p for p in pushes if p], lists), strict=True):
            after[i] = ref
    return replace(
        scope,
        nodes=build.nodes,
        args=(*scope.args, *(name for name, _ in args)),
        results=(*scope.results, *after) if returns else scope.results,
    )
