"""A GraphDef, from wherever, as a graph with inputs, outputs and variables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import node_def_pb2

from layertap.core.protocols import Json
from layertap.runtimes.tensorflow.legacy import modernized
from layertap.runtimes.tensorflow.live import named_outputs
from layertap.runtimes.tensorflow.opened import Input, Opened
from layertap.runtimes.tensorflow.variables import Variable
from layertap.runtimes.tfgraph.infer import Shape
from layertap.runtimes.tfgraph.order import in_order
from layertap.runtimes.tfgraph.scope import Node, Ref, Scope, flatten

PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
TABLES = (
    "HashTableV2",
    "MutableHashTableV2",
    "MutableHashTableOfTensorsV2",
    "MutableDenseHashTableV2",
)
_SHAPED_SINCE = 24
"""Version of GraphDef since which a placeholder without dimensions is a scalar; before, unknown."""
_numbers = itertools.count()


@dataclass(frozen=True)
class Interface:
    """What of a graph is wanted. ``inputs`` and ``outputs``: names of tensors by what people call
    them, None where nobody said; then placeholders are inputs, and what nothing else takes is an
    output. ``starts``: nodes to run once at first. ``texts``: constants to replace, by node."""

    inputs: Mapping[str, str] | None = None
    outputs: Mapping[str, str] | None = None
    starts: tuple[str, ...] = ()
    texts: Mapping[str, str] | None = None


def open_graph(
    graph: Any,
    interface: Interface,
    variable: Callable[[Node], Variable],
    provenance: Mapping[str, Json],
    keep: Any = None,
) -> Opened:
    """``variable`` finds the variable behind a VarHandleOp.

    Raises CorruptModel for a damaged graph and SourceError for unknown operations.
    """
    wanted = [*(interface.inputs or {}).values(), *(interface.outputs or {}).values()]
    needed = None
    if interface.outputs is not None:
        needed = [*(text.partition(":")[0] for text in wanted), *interface.starts]
    scope = flatten(graph, wanted, interface.starts, keep=needed)
    found, starts = scope.results, scope.effects
    scope, broken = modernized(replace(scope, results=(), effects=()))
    scope = _separate(scope, interface.texts or {})
    inputs = tuple(_inputs(scope, interface.inputs, found, graph.versions.producer))
    outputs = found[len(interface.inputs or {}) :]
    if interface.outputs is None:
        named = dict.fromkeys(_ends(scope, inputs), "")
    else:
        named = named_outputs(scope.nodes, zip(interface.outputs, outputs, strict=True))
    return Opened(
        scope,
        {function.signature.name: function for function in graph.library.function},
        graph.versions,
        inputs,
        named,
        {n.name: variable(n) for n in scope.nodes.values() if n.op == "VarHandleOp"},
        provenance,
        broken=broken,
        starts=starts,
        keep=keep,
    )


def _separate(scope: Scope, texts: Mapping[str, str]) -> Scope:
    """Tables under names that no other graph in this process uses, texts replaced."""
    nodes = dict(scope.nodes)
    for node in scope.nodes.values():
        if node.op in TABLES:
            proto = node_def_pb2.NodeDef()
            proto.CopyFrom(node.proto)
            proto.attr["shared_name"].s = f"layertap_{next(_numbers)}_{node.name}".encode()
            nodes[node.name] = replace(node, proto=proto)
        elif node.name in texts:
            proto = node_def_pb2.NodeDef()
            proto.attr["dtype"].type = tf.string.as_datatype_enum
            proto.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(texts[node.name]))
            nodes[node.name] = replace(node, op="Const", inputs=(), proto=proto)
    return replace(scope, nodes=nodes)


def _inputs(
    scope: Scope, names: Mapping[str, str] | None, found: Sequence[Ref], producer: int
) -> Iterator[Input]:
    if names is None:
        fed = [n for n in scope.nodes.values() if n.op in PLACEHOLDERS and not _is_handle(n)]
        several = len(fed) > 1
        for node in fed:
            optional = several or node.op == "PlaceholderWithDefault"
            yield Input(node.name, node.name, *_declared(node, producer), optional=optional)
        return
    for name, (node_name, _) in zip(names, found[: len(names)], strict=True):
        node = scope.nodes[node_name]
        optional = node.op == "PlaceholderWithDefault"
        yield Input(name, node_name, *_declared(node, producer), optional=optional)


def _is_handle(node: Node) -> bool:
    return tf.as_dtype(node.proto.attr["dtype"].type) in (tf.resource, tf.variant)


def _declared(node: Node, producer: int) -> tuple[Any, Shape | None]:
    attributes = node.proto.attr
    dtype = tf.as_dtype(attributes["dtype"].type).base_dtype
    shape = attributes["shape"].shape if "shape" in attributes else None
    if shape is None or shape.unknown_rank or (not shape.dim and producer < _SHAPED_SINCE):
        return dtype, None
    return dtype, tuple(None if axis.size < 0 else axis.size for axis in shape.dim)


def _ends(scope: Scope, inputs: Sequence[Input]) -> list[Ref]:
    """Results of nodes that depend on an input and that no other node takes."""
    consumed = {ref[0] for node in scope.nodes.values() for ref in node.inputs}
    fed = {one.node for one in inputs}
    reached = set(fed)
    for node in in_order(scope.nodes):
        if any(ref[0] in reached for ref in node.inputs):
            reached.add(node.name)
    return [(name, 0) for name in scope.nodes if name in reached - consumed - fed]
