"""A GraphDef, from wherever, as a graph with inputs, outputs and variables."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import node_def_pb2

from layertap.core.protocols import Json
from layertap.errors import SourceError
from layertap.runtimes.tensorflow.legacy import modernized
from layertap.runtimes.tensorflow.live import named_outputs
from layertap.runtimes.tensorflow.opened import Input, Opened
from layertap.runtimes.tensorflow.variables import Variable
from layertap.runtimes.tensorflow.writes import writes
from layertap.runtimes.tfgraph.classic import contexts_of
from layertap.runtimes.tfgraph.infer import Shape, infer
from layertap.runtimes.tfgraph.scope import (
    Node,
    Ref,
    Scope,
    dtype_of,
    flatten,
    op_def,
    ordered,
    output_counts,
)

PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
TABLES = (
    "HashTableV2",
    "MutableHashTableV2",
    "MutableHashTableOfTensorsV2",
    "MutableDenseHashTableV2",
)
_FILES = frozenset(
    {
        "RestoreV2",
        "Restore",
        "RestoreSlice",
        "SaveV2",
        "Save",
        "SaveSlices",
        "MergeV2Checkpoints",
        "WriteFile",
    }
)
_VALUES = ("Const", "VarHandleOp", *PLACEHOLDERS)
"""What can be read, or fed, whatever it is for."""
_WAITING = (
    "QueueDequeue",
    "ReaderRead",
    "IteratorGetNext",
    "IteratorToStringHandle",
    "TakeManySparse",
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
    owner: Any = None,
) -> Opened:
    """``variable`` finds the variable behind a VarHandleOp.

    Raises CorruptModel for a damaged graph, SourceError for unknown operations and for names of
    inputs or outputs that the graph does not have.
    """
    wanted = [*(interface.inputs or {}).values(), *(interface.outputs or {}).values()]
    _check_names(graph, wanted)
    keep = None if interface.outputs is None else [text.partition(":")[0] for text in wanted]
    flat = flatten(graph, wanted, keep=keep)
    number = next(_numbers)
    scope, broken = _readied(flat, interface, number)
    count = len(interface.inputs or {})
    fed, outputs = flat.results[:count], flat.results[count:]
    scope, fed = _cut(scope, fed, graph.versions)
    if interface.outputs is None:
        broken |= _machinery(scope)
    else:
        scope = scope.ancestors([*fed, *outputs])
    inputs = tuple(_inputs(scope, interface.inputs, fed, graph.versions.producer))
    named = named_outputs(scope.nodes, zip(interface.outputs or (), outputs, strict=True))
    started = flatten(graph, (), interface.starts, keep=interface.starts)
    starts = replace(_readied(started, interface, number)[0], effects=started.effects)
    handles = {**scope.nodes, **starts.nodes}.values()
    return Opened(
        scope,
        {function.signature.name: function for function in graph.library.function},
        graph.versions,
        inputs,
        named if interface.outputs is not None else dict.fromkeys(_ends(scope, inputs), ""),
        {node.name: variable(node) for node in handles if node.op == "VarHandleOp"},
        provenance,
        broken=broken,
        starts=starts,
        owner=owner,
    )


def _readied(flat: Scope, interface: Interface, number: int) -> tuple[Scope, dict[str, str]]:
    """What was flattened, fit to run beside others in this process, and why some nodes cannot."""
    scope, broken = modernized(replace(flat, results=(), effects=()))
    return _separate(scope, interface.texts or {}, number), broken


def _check_names(graph: Any, wanted: Sequence[str]) -> None:
    nodes = {node.name: node for node in graph.node}
    library = {one.signature.name: one for one in graph.library.function}
    for text in wanted:
        name, _, number = text.partition(":")
        if name not in nodes:
            near = difflib.get_close_matches(name, nodes, n=3, cutoff=0.5)
            raise SourceError(
                f"the graph has no tensor {text!r}",
                hint=f"near names: {', '.join(near)}" if near else f"it has {len(nodes)} nodes",
            )
        count = _results(nodes[name], library)
        if not (number or "0").isdecimal() or int(number or 0) >= count:
            raise SourceError(
                f"the graph has no tensor {text!r}",
                hint=f"{name!r} has {count} results, numbered from 0",
            )


def _results(node: Any, library: Mapping[str, Any]) -> int:
    """How many tensors a node, or a call of a function, computes."""
    if node.op in library:
        return len(library[node.op].signature.output_arg)
    return sum(count for _, count in output_counts(op_def(node.op), node.attr))


def _cut(scope: Scope, fed: Sequence[Ref], versions: Any) -> tuple[Scope, tuple[Ref, ...]]:
    """``scope`` with placeholders for the tensors in ``fed`` that are none."""
    computed = [ref for ref in fed if scope.nodes[ref[0]].op not in PLACEHOLDERS]
    if not computed:
        return scope, tuple(fed)
    types = infer(scope, {}, versions)[()]
    nodes, given = dict(scope.nodes), {}
    for ref in computed:
        proto = node_def_pb2.NodeDef()
        proto.attr["dtype"].type = types[ref].dtype.as_datatype_enum
        proto.attr["shape"].shape.CopyFrom(tf.TensorShape(types[ref].shape).as_proto())
        name = f"{ref[0]}/fed_{ref[1]}"
        nodes[name] = Node(name, "Placeholder", (), (), proto)
        given[ref] = (name, 0)
    for node in scope.nodes.values():
        inputs = tuple(given.get(ref, ref) for ref in node.inputs)
        nodes[node.name] = replace(nodes[node.name], inputs=inputs)
    return ordered(replace(scope, nodes=nodes)), tuple(given.get(ref, ref) for ref in fed)


def _machinery(scope: Scope) -> dict[str, str]:
    """In a graph of which nobody said what is wanted: what initializes, trains, saves, restores and
    feeds the model, with the reason why it is left alone. Its order relative to the rest, and so
    what the rest reads while it runs, is in the program that made the graph only."""
    variables = {n.name: n.name for n in scope.nodes.values() if n.op == "VarHandleOp"}
    changes = writes(scope, variables)
    found = {name: f"it assigns the variable {changes[name]!r}" for name in changes}
    for node in scope.nodes.values():
        if node.op in _FILES:
            found[node.name] = f"{node.op} reads or writes files"
        elif node.op.startswith(_WAITING):
            found[node.name] = f"{node.op} waits for data that nobody delivers"
    return found | _only_for(scope, found)


def _only_for(scope: Scope, machinery: Mapping[str, str]) -> dict[str, str]:
    """What nothing but the machinery needs, the initial values of variables for instance."""
    users: dict[str, list[str]] = {name: [] for name in scope.nodes}
    found: dict[str, str] = {}
    for node in reversed(scope.nodes.values()):
        own = users[node.name]
        if own and node.op not in _VALUES and all(n in machinery or n in found for n in own):
            found[node.name] = machinery.get(own[0]) or found[own[0]]
        for name in (*(ref[0] for ref in node.inputs), *node.controls):
            users[name].append(node.name)
    return {name: f"it only serves another: {why}" for name, why in found.items()}


def _separate(scope: Scope, texts: Mapping[str, str], number: int) -> Scope:
    """Tables under names that no other graph in this process uses, texts replaced."""
    nodes = dict(scope.nodes)
    for node in scope.nodes.values():
        if node.op in TABLES:
            proto = node_def_pb2.NodeDef()
            proto.CopyFrom(node.proto)
            proto.attr["shared_name"].s = f"layertap_{number}_{node.name}".encode()
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
        texts = [n for n in fed if n.op == "PlaceholderWithDefault" and _is_text(n)]
        fed = [node for node in fed if node not in texts]  # the file names of savers
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
    return dtype_of(node) in (tf.resource, tf.variant)


def _is_text(node: Node) -> bool:
    return bool(dtype_of(node) == tf.string)


def _declared(node: Node, producer: int) -> tuple[Any, Shape | None]:
    attributes = node.proto.attr
    dtype = dtype_of(node)
    shape = attributes["shape"].shape if "shape" in attributes else None
    if shape is None or shape.unknown_rank or (not shape.dim and producer < _SHAPED_SINCE):
        return dtype, None
    return dtype, tuple(None if axis.size < 0 else axis.size for axis in shape.dim)


def _ends(scope: Scope, inputs: Sequence[Input]) -> list[Ref]:
    """Results of nodes that depend on an input and that no other node takes."""
    consumed = {ref[0] for node in scope.nodes.values() for ref in node.inputs}
    contexts = contexts_of(scope)
    fed = {one.node for one in inputs}
    reached = set(fed)
    for node in scope.nodes.values():
        if any(ref[0] in reached for ref in node.inputs):
            reached.add(node.name)
    ends = [(name, 0) for name in scope.nodes if name in reached - consumed - fed]
    return [ref for ref in ends if contexts is None or contexts[ref].plain]
