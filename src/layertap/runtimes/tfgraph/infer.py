"""Dtypes and shapes of every tensor, found without running and without copying constants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework import tensor_util

from layertap.errors import CorruptModel
from layertap.runtimes.tfgraph.iterations import iterations
from layertap.runtimes.tfgraph.scope import LOOPS, Node, Ref, Scope, dtype_of

Shape = tuple[int | None, ...]

Path = tuple[tuple[str, int], ...]
"""Where a scope is: the nodes that run it, outermost first, each with the number of the branch."""

SMALL = 256
"""Constants with more elements than this say nothing about shapes."""
_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Type:
    """dtype, shape (None where unknown), for handles of variables the variable's own dtype and
    shape, for what is known to be constant its value, for lists of tensors the shape of each."""

    dtype: Any
    shape: Shape | None
    handle: tuple[Any, Shape | None] | None = None
    value: Any = None
    item: Shape | None = None


Types = dict[Path, dict[Ref, Type]]

ITERATIONS: Ref = ("", 0)
"""No tensor: among the types of a loop's scopes, the value says how often it runs, if known."""


def infer(scope: Scope, known: Mapping[str, Type], versions: Any) -> Types:
    """Types of all tensors of ``scope`` and of the scopes inside it.

    ``known`` gives inputs (placeholders with the shapes they are fed) and variables by node.
    Raises CorruptModel when TensorFlow refuses the graph, as with shapes that contradict.
    """
    found: Types = {}
    _infer(scope, known, versions, (), found)
    return found


def _infer(
    scope: Scope, known: Mapping[str, Type], versions: Any, path: Path, found: Types
) -> None:
    """What a loop or branch returns is known better from inside than from its node, so what
    follows is looked at again with that, as long as that tells more."""
    learnt: dict[str, Any] = {}
    starts: dict[str, Shape | None] = {}
    for _ in range(_ROUNDS):
        graph, types = _imported(scope, known, versions, learnt)
        found[path] = types
        more = _merges(scope, types, learnt, starts)
        for node in scope.nodes.values():
            if node.branches:
                shapes = _infer_branches(node, graph, versions, path, found)
                if shapes != [types[node.name, i].shape for i in range(len(shapes))]:
                    more[node.name] = shapes
            elif node.op == "TensorListStack":
                more |= _stacked(node, scope, graph, path, found)
            elif node.op == "TensorListGetItem":
                more |= _picked(node, scope, types)
            elif node.op == "LookupTableFindV2":
                more[node.name] = _found(node, types)
        if all(learnt.get(name) == value for name, value in more.items()):
            return
        learnt |= more
    unsettled = {node.name: None for node in scope.nodes.values() if _starts_loop(scope, node)}
    _, found[path] = _imported(scope, known, versions, learnt | unsettled)


def _merges(
    scope: Scope,
    types: Mapping[Ref, Type],
    learnt: Mapping[str, Any],
    starts: dict[str, Shape | None],
) -> dict[str, Any]:
    """Types of the variables of TensorFlow 1 loops. They have the shape that they start with, until
    all have been given theirs and one turns out to have another one in the next iteration."""
    loops = [node for node in scope.nodes.values() if _starts_loop(scope, node)]
    first = {n.name: types[through(scope, n.inputs[0], ("Enter", "RefEnter"))] for n in loops}
    begun = {
        name: replace(kind, value=None)
        for name, kind in first.items()
        if name not in learnt or starts[name] != kind.shape
    }
    starts.update({name: first[name].shape for name in begun})
    if begun:
        return dict(begun)
    return {node.name: _relaxed(learnt[node.name], types[node.inputs[1]]) for node in loops}


def _starts_loop(scope: Scope, node: Node) -> bool:
    """Whether a node is where a loop of TensorFlow 1 begins anew."""
    if node.op != "Merge" or len(node.inputs) != 2:
        return False
    return any(scope.nodes[ref[0]].op == "NextIteration" for ref in node.inputs)


def _found(node: Node, types: Mapping[Ref, Type]) -> Type:
    """What a table gives for keys, which TensorFlow itself does not infer."""
    keys, default = (types[ref] for ref in node.inputs[1:])
    if keys.shape is None or default.shape is None:
        return Type(default.dtype, None)
    return Type(default.dtype, (*keys.shape, *default.shape))


def _imported(
    scope: Scope, known: Mapping[str, Type], versions: Any, learnt: Mapping[str, Any]
) -> tuple[Any, dict[Ref, Type]]:
    """``scope`` as a graph without large constants, and the type of each tensor."""
    skeleton = _Skeleton(versions)
    for node in scope.nodes.values():
        skeleton.add(node, known.get(node.name), learnt.get(node.name))
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.graph_util.import_graph_def(skeleton.finished(), name="")
    except (ValueError, tf.errors.OpError) as error:
        raise CorruptModel(
            f"TensorFlow refuses the graph: {str(error).strip().partition(chr(10))[0][:300]}",
            hint="the file is damaged, or inputs were given shapes that do not fit",
        ) from error
    types = {
        (operation.name, i): _type(tensor, known.get(operation.name))
        for operation in graph.get_operations()
        for i, tensor in enumerate(operation.outputs)
    }
    return graph, types | skeleton.large


def _type(tensor: Any, known: Type | None) -> Type:
    shape = _shape(tensor)
    if known is not None:
        return replace(known, dtype=tensor.dtype.base_dtype, shape=shape)
    item = None
    if tensor.op.type == "TensorListFromTensor":
        whole = _shape(tensor.op.inputs[0])
        item = None if whole is None else whole[1:]
    return Type(tensor.dtype.base_dtype, shape, item=item)


def _shape(tensor: Any) -> Shape | None:
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())


class _Skeleton:
    """A GraphDef that says what decides about shapes. ``large``: constants that are not in it; one
    placeholder stands for all that are alike."""

    def __init__(self, versions: Any) -> None:
        self._graph = graph_pb2.GraphDef(versions=versions)
        self._stand_ins: dict[str, str] = {}
        self._alike: dict[tuple[Any, Shape | None], str] = {}
        self.large: dict[Ref, Type] = {}

    def add(self, node: Node, known: Type | None, learnt: Any) -> None:
        if isinstance(learnt, Type):
            known = learnt
        if known is None and node.op == "Const":
            large = _large(node)
            if large is not None:
                self._stand_in(node.name, large)
                return
        proto = self._graph.node.add(name=node.name)
        if known is not None:
            _declare(proto, known)
            return
        proto.op = node.op
        for key, value in node.proto.attr.items():
            if not key.startswith("_"):
                proto.attr[key].CopyFrom(value)
        proto.input.extend(f"{name}:{output}" for name, output in node.inputs)
        if learnt is not None:
            shapes = [tf.TensorShape(shape).as_proto() for shape in learnt]
            proto.attr["output_shapes"].list.ClearField("shape")
            proto.attr["output_shapes"].list.shape.extend(shapes)

    def finished(self) -> Any:
        for proto in self._graph.node if self._stand_ins else ():
            for i, text in enumerate(proto.input):
                name, _, output = text.rpartition(":")
                if name in self._stand_ins:
                    proto.input[i] = f"{self._stand_ins[name]}:{output}"
        return self._graph

    def _stand_in(self, name: str, kind: Type) -> None:
        alike = (kind.dtype, kind.shape)
        if alike not in self._alike:
            self._alike[alike] = name
            _declare(self._graph.node.add(name=name), kind)
        self._stand_ins[name] = self._alike[alike]
        self.large[name, 0] = kind


def _declare(proto: Any, known: Type) -> None:
    """Make a node of what is known of its result."""
    if known.value is not None:
        proto.op = "Const"
        proto.attr["dtype"].type = known.dtype.as_datatype_enum
        proto.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(known.value, known.dtype))
    elif known.handle is not None:
        proto.op = "VarHandleOp"
        proto.attr["dtype"].type = known.handle[0].as_datatype_enum
        proto.attr["shape"].shape.CopyFrom(tf.TensorShape(known.handle[1]).as_proto())
        proto.attr["shared_name"].s = proto.name.encode()
    else:
        proto.op = "Placeholder"
        proto.attr["dtype"].type = known.dtype.as_datatype_enum
        proto.attr["shape"].shape.CopyFrom(tf.TensorShape(known.shape).as_proto())


def _large(node: Node) -> Type | None:
    tensor = node.proto.attr["value"].tensor
    shape = tuple(axis.size for axis in tensor.tensor_shape.dim)
    if math.prod(shape) <= SMALL:
        return None
    return Type(dtype_of(node), shape)


def _infer_branches(
    node: Node, graph: Any, versions: Any, path: Path, found: Types
) -> list[Shape | None]:
    """Types inside the scopes that a node runs, and the shapes of what it returns. Inside a loop an
    argument has the shape that it has before the first iteration, as long as the body does not
    change it."""
    start = 0 if node.op in LOOPS else 1
    outer = [_passed(ref, graph, found[path]) for ref in node.inputs[start:]]
    count = None
    if node.op in LOOPS:
        count = iterations(node, [one.value for one in outer])
        outer = _in_loop(node.branches[-1], outer, versions)
    returned: list[list[Shape | None]] = []
    for i, inner in enumerate(node.branches):
        inside: Path = (*path, (node.name, i))
        known = dict(zip(inner.args, outer, strict=True))
        _infer(inner, known, versions, inside, found)
        if count is not None:
            found[inside][ITERATIONS] = Type(tf.int64, (), value=count)
        returned.append([found[inside][ref].shape for ref in inner.results])
    if node.op in LOOPS:
        return [one.shape for one in outer]
    return [_common(shapes) for shapes in zip(*returned, strict=True)]


def _in_loop(body: Scope, before: list[Type], versions: Any) -> list[Type]:
    """The types of loop variables that hold for every iteration."""
    types = list(_invariant(body, before))
    for _ in range(_ROUNDS):
        trial: Types = {}
        _infer(body, dict(zip(body.args, types, strict=True)), versions, (), trial)
        results = [trial[()][ref] for ref in body.results]
        relaxed = [_relaxed(a, b) for a, b in zip(types, results, strict=True)]
        if relaxed == types:
            return types
        types = relaxed
    return [one if one.handle else replace(one, shape=None, value=None) for one in types]


def _common(shapes: Sequence[Shape | None]) -> Shape | None:
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes) or len({len(shape) for shape in known}) != 1:
        return None
    sizes = zip(*known, strict=True)
    return tuple(size[0] if len(set(size)) == 1 else None for size in sizes)


def _stacked(node: Node, scope: Scope, graph: Any, path: Path, found: Types) -> dict[str, Type]:
    """The tensors of a list that was reserved before a loop that fills it in, as ``tf.map_fn`` and
    ``tf.TensorArray`` do: their number was known before, their shape is known inside."""
    loop_name, output = through(scope, node.inputs[0], ("Identity",))
    loop = scope.nodes[loop_name]
    if loop.op not in LOOPS:
        return {}
    body, inside = loop.branches[-1], found[(*path, (loop_name, len(loop.branches) - 1))]
    made = scope.nodes[through(scope, loop.inputs[output], ("Identity",))[0]]
    ref = through(body, body.results[output], ("Identity",))
    setting = body.nodes[ref[0]]
    if setting.op != "TensorListSetItem" or made.op != "TensorListReserve" or _resizes(setting):
        return {}
    if through(body, setting.inputs[0], ("Identity",)) != (body.args[output], 0):
        return {}
    count, item = _evaluated(graph, made.inputs[1]), inside[setting.inputs[2]]
    now = found[path][node.name, 0]
    length = None if count is None else int(count)
    return {} if item.shape is None else _finer(node, now, (length, *item.shape))


def _picked(node: Node, scope: Scope, types: Mapping[Ref, Type]) -> dict[str, Type]:
    """A tensor of a list that was made by taking a tensor apart."""
    item = types[through(scope, node.inputs[0], ("Identity",))].item
    now = types[node.name, 0]
    return {} if item is None else _finer(node, now, item)


def _finer(node: Node, now: Type, shape: Shape) -> dict[str, Type]:
    """What is learnt of a node's result by a second shape of it; nothing if that is known."""
    if now.shape is not None and len(now.shape) == len(shape):
        shape = tuple(b if a is None else a for a, b in zip(now.shape, shape, strict=True))
    return {} if now.shape == shape else {node.name: Type(now.dtype, shape)}


def through(scope: Scope, ref: Ref, ops: Sequence[str]) -> Ref:
    """Where a tensor comes from, before operations that hand on their first input."""
    node = scope.nodes[ref[0]]
    while node.op in ops and not _resizes(node):
        ref = node.inputs[0]
        node = scope.nodes[ref[0]]
    return ref


def _resizes(node: Node) -> bool:
    attributes = node.proto.attr
    key = "resize_if_index_out_of_bounds"
    return key in attributes and bool(attributes[key].b)


def _passed(ref: Ref, graph: Any, types: Mapping[Ref, Type]) -> Type:
    known = types[ref]
    sizes = [size for size in known.shape or (None,) if size is not None]
    if known.shape is None or len(sizes) < len(known.shape) or math.prod(sizes) > SMALL:
        return known
    if known.handle is not None or not (known.dtype.is_integer or known.dtype.is_bool):
        return known
    return replace(known, value=_evaluated(graph, ref))


def _evaluated(graph: Any, ref: Ref) -> Any:
    """The value of a tensor that depends on constants and known shapes only, else None."""
    tensor = graph.get_operation_by_name(ref[0]).outputs[ref[1]]
    return tensor_util.try_evaluate_constant(tensor)


def _invariant(body: Scope, before: Sequence[Type]) -> Iterator[Type]:
    """What is known of loop variables: a value only where the body passes it on as it is."""
    for arg, result, known in zip(body.args, body.results, before, strict=True):
        same = through(body, result, ("Identity",)) == (arg, 0)
        yield known if same else replace(known, value=None, item=None)


def _relaxed(before: Type, after: Type) -> Type:
    if before.shape == after.shape or before.value is not None or before.handle is not None:
        return before
    if before.shape is None or after.shape is None or len(before.shape) != len(after.shape):
        return replace(before, shape=None)
    sizes = zip(before.shape, after.shape, strict=True)
    return replace(before, shape=tuple(a if a == b else None for a, b in sizes))
