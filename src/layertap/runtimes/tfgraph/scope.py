"""Graphs and functions as flat scopes of nodes, without copying what constants hold."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import node_def_pb2, op_def_pb2
from tensorflow.python.framework import op_def_registry

from layertap.errors import CorruptModel, SourceError

Ref = tuple[str, int]
"""A tensor: the name of its node and the number of the output."""

ROLES: Mapping[str, tuple[str, ...]] = {
    "While": ("cond", "body"),
    "StatelessWhile": ("cond", "body"),
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
    "Case": ("branches",),
    "StatelessCase": ("branches",),
}
"""Operations that run functions of their own, and the attributes that name the functions."""

LOOPS = ("While", "StatelessWhile")
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
BACK = ("NextIteration", "RefNextIteration")
"""What hands a value to the next iteration of a loop of TensorFlow 1."""
ARGUMENT = "_Arg"
_TRIVIAL = frozenset(
    {ARGUMENT, "Placeholder", "VarHandleOp", "Identity", "NoOp", "Const", "HashTableV2"}
)
_BY_DEFAULT = re.compile(r"(.*/)?(?:Stateful)?PartitionedCall(?:_\d+)*")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\-/]")
_FUNCTION_NAME = re.compile(r"(?:__(?:inference|forward|backward)_)?(.*?)(?:_\d+)*")


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. ``proto`` holds its attributes only: its name and inputs are out of date, and
    it is shared, so never changed. ``branches`` are the scopes that a loop or branch runs."""

    name: str
    op: str
    inputs: tuple[Ref, ...]
    controls: tuple[str, ...]
    proto: Any
    branches: tuple[Scope, ...] = ()
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """Nodes by name, each after those that it needs, but for what rewriting adds; of a function
    also its arguments, results, and ``effects``: nodes that must run whether or not a result needs
    them."""

    nodes: dict[str, Node]
    args: tuple[str, ...] = ()
    results: tuple[Ref, ...] = ()
    effects: tuple[str, ...] = ()

    def ancestors(self, refs: Iterable[Ref | str]) -> Scope:
        """Only what ``refs`` (tensors, or nodes by name) need. Results and arguments stay."""
        todo = [ref if isinstance(ref, str) else ref[0] for ref in refs]
        needed: set[str] = set()
        while todo:
            name = todo.pop()
            if name in needed:
                continue
            needed.add(name)
            node = self.nodes[name]
            todo.extend(ref[0] for ref in node.inputs)
            todo.extend(node.controls)
        kept = {name: node for name, node in self.nodes.items() if name in needed}
        return replace(self, nodes=kept)


def ordered(scope: Scope) -> Scope:
    """``scope`` with its nodes in an order in which they can run."""
    return replace(scope, nodes={node.name: node for node in in_order(scope.nodes)})


def in_order(nodes: Mapping[str, Node]) -> Iterator[Node]:
    """Every node after those that it needs, else in the given order; what a loop of old hands to
    its next iteration counts as needed by nobody."""
    position = {name: i for i, name in enumerate(nodes)}
    waiting: dict[str, int] = {}
    followers: dict[str, list[str]] = {name: [] for name in nodes}
    for node in nodes.values():
        needed = {ref[0] for ref in node.inputs} | set(node.controls)
        needed = {name for name in needed if nodes[name].op not in BACK}
        waiting[node.name] = len(needed)
        for name in needed:
            followers[name].append(node.name)
    ready = [position[name] for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    names = list(nodes)
    while ready:
        node = nodes[names[heapq.heappop(ready)]]
        yield node
        for name in followers[node.name]:
            waiting[name] -= 1
            if not waiting[name]:
                heapq.heappush(ready, position[name])


def output_counts(op: op_def_pb2.OpDef, attributes: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Names of an operation's output arguments, each with the number of tensors it stands for."""
    defaults = {attr.name: attr.default_value for attr in op.attr}

    def value(name: str) -> Any:
        return attributes[name] if name in attributes else defaults[name]

    counts = []
    for arg in op.output_arg:
        if arg.number_attr:
            counts.append((arg.name, int(value(arg.number_attr).i)))
        elif arg.type_list_attr:
            counts.append((arg.name, len(value(arg.type_list_attr).list.type)))
        else:
            counts.append((arg.name, 1))
    return counts


def op_def(name: str) -> op_def_pb2.OpDef:
    """What TensorFlow knows of an operation. Raises SourceError where it knows nothing."""
    found = op_def_registry.get(name)
    if found is None:
        raise SourceError(
            f"the graph has an operation {name!r} that TensorFlow {tf.__version__} does not have",
            hint="load the library of the custom operation first, with tf.load_op_library",
        )
    return found


def dtype_of(node: Node) -> Any:
    """What the attribute ``dtype`` of a node says. Raises CorruptModel when it says nothing."""
    number = node.proto.attr["dtype"].type
    try:
        return tf.as_dtype(number).base_dtype
    except TypeError as error:
        raise CorruptModel(
            f"the node {node.name!r} has no dtype that TensorFlow knows ({number})",
            hint="the file is damaged",
        ) from error


def flatten(
    graph: Any,
    results: Sequence[str] = (),
    effects: Sequence[str] = (),
    *,
    keep: Sequence[str] | None = None,
) -> Scope:
    """A GraphDef as one scope, with only what the nodes named in ``keep`` need if that is given.

    ``results`` are names of tensors (``node:1``), ``effects`` of nodes, to be found again in the
    scope's own where calls were inlined. Raises CorruptModel when an input or a function is
    missing, SourceError for operations that TensorFlow does not have.
    """
    library = {function.signature.name: function for function in graph.library.function}
    nodes = list(graph.node)
    if keep is not None:
        nodes = _ancestors(nodes, keep)
    flat = _Flat(library, ())
    flat.classic = any(node.op in ("Switch", "RefSwitch", "Enter", "RefEnter") for node in nodes)
    ids = flat.expand(nodes, "", {}, _graph_ref, ())
    if len(ids) != len(nodes):
        raise CorruptModel("two nodes of the graph share a name", hint="the file is damaged")
    refs = [_graph_ref(text) for text in results]
    missing = next((name for name in (*(r[0] for r in refs), *effects) if name not in ids), None)
    if missing is not None:
        raise missing_node(missing)
    ends = _once(end for name in effects for end in flat.last(ids[name]))
    found = tuple(flat.final((ids[name], output)) for name, output in refs)
    return ordered(Scope(flat.settled(), (), found, ends))


def _ancestors(nodes: list[Any], keep: Sequence[str]) -> list[Any]:
    by_name = {node.name: node for node in nodes}
    todo, needed = list(keep), set()
    while todo:
        name = todo.pop()
        if name in needed:
            continue
        needed.add(name)
        if name not in by_name:
            raise missing_node(name)
        todo.extend(text.lstrip("^").partition(":")[0] for text in by_name[name].input)
    return [node for node in nodes if node.name in needed]


def missing_node(name: str) -> CorruptModel:
    return CorruptModel(
        f"the graph has no node {name!r}, which others need",
        hint="the file is cut off, or its nodes were removed by a faulty tool",
    )


def _graph_ref(text: str) -> Ref:
    name, _, output = text.partition(":")
    return name, int(output or 0)


def readable(function: str) -> str:
    """The name that a person gave to a function: ``__inference_step_17`` is ``step``; without what
    names of nodes may not hold or start with."""
    found = _FUNCTION_NAME.fullmatch(function)
    name = _NOT_IN_NAMES.sub("", found[1] if found else "").lstrip("_-/")
    return name or "call"


@dataclass
class _Flat:
    """Gathers the nodes of one scope while calls are inlined into it."""

    library: Mapping[str, Any]
    stack: tuple[str, ...]
    classic: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    prefixes: set[str] = field(default_factory=set)
    aliases: dict[Ref, Ref] = field(default_factory=dict)
    ends: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def expand(
        self,
        protos: Sequence[Any],
        prefix: str,
        args: Mapping[str, Ref],
        parse: Callable[[str], Ref],
        after: tuple[str, ...],
        names: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """Add nodes; returns their names in the scope by their own. ``args`` are known tensors by
        name; nodes that start from nothing else wait for ``after``; ``names`` are better ones."""
        better = names or {}
        ids = {p.name: self._unused(prefix + better.get(p.name, p.name)) for p in protos}
        calls = [proto for proto in protos if self._callee(proto)]
        wraps = len(calls) == 1 and all(p.op in _TRIVIAL or p is calls[0] for p in protos)
        for proto in protos:
            inputs: list[Ref] = []
            controls: list[str] = []
            for text in proto.input:
                name = text.lstrip("^").partition(":")[0]
                if name not in ids and name not in args:
                    raise missing_node(name)
                if text[0] == "^":
                    controls.append(args[name][0] if name in args else ids[name])
                    continue
                own, output = parse(text)
                inputs.append(args[own] if own in args else (ids[own], output))
            local = any(t.lstrip("^").partition(":")[0] not in args for t in proto.input)
            if not local:
                controls.extend(after)
            if self.classic and prefix and not inputs:
                # What a call in a branch or loop of old needs no value for still lives in there.
                controls.extend(ref[0] for ref in args.values())
            node = Node(ids[proto.name], proto.op, tuple(inputs), _once(controls), proto)
            if self._callee(proto):
                self._inline(node, prefix, wraps)
            else:
                self.nodes[node.name] = self._with_branches(node)
        return ids

    def _unused(self, name: str) -> str:
        unused, number = name, 0
        while unused in self.nodes or unused in self.ends or unused in self.prefixes:
            number += 1
            unused = f"{name}_{number}"
        self.prefixes.add(unused)
        return unused

    def _callee(self, proto: Any) -> str:
        """The function that a node calls, unless that would never end."""
        name = str(proto.attr["f"].func.name) if proto.op in CALLS else proto.op
        if name in self.stack or name not in self.library:
            return ""
        return name

    def _inline(self, call: Node, prefix: str, wraps: bool) -> None:
        name = self._callee(call.proto)
        body = _Body(self.library[name], self.library)
        inside = self._prefix(call.name, name, wraps)
        outer, self.stack = self.stack, (*self.stack, name)
        args = dict(zip(body.args, call.inputs, strict=True))
        ids = self.expand(body.protos, inside, args, body.parse, call.controls, body.names)
        self.stack = outer

        def own(ref: Ref) -> Ref:
            return args[ref[0]] if ref[0] in args else (ids[ref[0]], ref[1])

        results = [own(ref) for ref in body.results]
        for i, ref in enumerate(results):
            self.aliases[call.name, i] = ref
        effects = [ids[effect] for effect in body.effects]
        self.ends[call.name] = _once([*(ref[0] for ref in results), *effects])

    def _prefix(self, call: str, function: str, wraps: bool) -> str:
        found = _BY_DEFAULT.fullmatch(call)
        folder = found[1] or "" if found else ""
        if wraps and found:
            return folder
        name = f"{folder}{readable(function)}" if found else call
        return (name if name == call else self._unused(name)) + "/"

    def _with_branches(self, node: Node) -> Node:
        roles = ROLES.get(node.op)
        if roles is None:
            op_def(node.op)
            return node
        functions = []
        for role in roles:
            attr = node.proto.attr[role]
            functions += [attr.func.name] if attr.func.name else [f.name for f in attr.list.func]
        missing = [name for name in functions if name not in self.library]
        if missing:
            raise CorruptModel(
                f"the graph has no function {missing[0]!r}, which {node.name!r} runs",
                hint="the file is cut off, or its functions were removed by a faulty tool",
            )
        if any(name in self.stack for name in functions):
            return node
        names = _role_names(roles, len(functions))
        scopes = tuple(self._function(name) for name in functions)
        return replace(node, branches=scopes, roles=names)

    def _function(self, name: str) -> Scope:
        body = _Body(self.library[name], self.library)
        flat = _Flat(self.library, (*self.stack, name))
        for arg, proto in body.args.items():
            flat.nodes[arg] = Node(arg, ARGUMENT, (), (), proto)
        args: dict[str, Ref] = {arg: (arg, 0) for arg in body.args}
        ids = flat.expand(body.protos, "", args, body.parse, (), body.names)
        settled = flat.settled()

        def own(ref: Ref) -> Ref:
            return flat.final(args[ref[0]] if ref[0] in args else (ids[ref[0]], ref[1]))

        effects = _once(end for effect in body.effects for end in flat.last(ids[effect]))
        return ordered(Scope(settled, tuple(body.args), tuple(map(own, body.results)), effects))

    def final(self, ref: Ref) -> Ref:
        while ref in self.aliases:
            ref = self.aliases[ref]
        return ref

    def last(self, name: str) -> Iterator[str]:
        """The nodes after which a node, or a call that was inlined, is done."""
        if name not in self.ends:
            yield name
            return
        for end in self.ends[name]:
            yield from self.last(end)

    def settled(self) -> dict[str, Node]:
        """The nodes, with inputs and controls that refer to nodes only."""
        settled = {}
        for node in self.nodes.values():
            controls = _once(end for name in node.controls for end in self.last(name))
            inputs = tuple(map(self.final, node.inputs))
            settled[node.name] = replace(node, inputs=inputs, controls=controls)
        return settled


class _Body:
    """A FunctionDef: its arguments (with a node that tells the dtype), nodes, results."""

    def __init__(self, function: Any, library: Mapping[str, Any]) -> None:
        self._library = library
        signature = function.signature
        self.args = {arg.name: _argument(arg) for arg in signature.input_arg}
        self.protos = list(function.node_def)
        self._by_name = {proto.name: proto for proto in self.protos}
        self._starts: dict[str, dict[str, int]] = {}
        self.results = [self.parse(function.ret[arg.name]) for arg in signature.output_arg]
        self.names = dict(_renamed_back(function))
        self.effects = [function.control_ret[name] for name in signature.control_output]

    def parse(self, text: str) -> Ref:
        """``node:argument:i`` as a node and the number of its output."""
        name, *place = text.split(":")
        if not place:
            return name, 0
        if name not in self._starts:
            self._starts[name] = self._outputs(name)
        return name, self._starts[name][place[0]] + (int(place[1]) if len(place) > 1 else 0)

    def _outputs(self, name: str) -> dict[str, int]:
        if name not in self._by_name:
            raise missing_node(name)
        proto = self._by_name[name]
        called = self._library.get(proto.op)
        signature = op_def(proto.op) if called is None else called.signature
        starts, start = {}, 0
        for argument, count in output_counts(signature, proto.attr):
            starts[argument] = start
            start += count
        return starts


def _renamed_back(function: Any) -> Iterator[tuple[str, str]]:
    """Nodes that were given another name because a result has theirs, with their own."""
    taken = {proto.name for proto in function.node_def}
    for result, source in function.ret.items():
        node = source.partition(":")[0]
        if node == f"{result}_0" and result not in taken:
            yield node, result


def _argument(arg: Any) -> Any:
    proto = node_def_pb2.NodeDef(name=arg.name, op=ARGUMENT)
    proto.attr["dtype"].type = arg.type
    return proto


def _role_names(roles: tuple[str, ...], count: int) -> tuple[str, ...]:
    if roles == ("branches",):
        return tuple(f"branch{i}" for i in range(count))
    return tuple(role.removesuffix("_branch") for role in roles)


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
