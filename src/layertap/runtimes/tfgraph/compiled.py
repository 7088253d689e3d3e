"""A scope as a TensorFlow function that returns the wanted tensors in one call."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import function_pb2, graph_pb2

from layertap.core.dtypes import Array
from layertap.runtimes.tfgraph.buffers import arrays as owned
from layertap.runtimes.tfgraph.buffers import given_away
from layertap.runtimes.tfgraph.internals import call_flat, eager_mode
from layertap.runtimes.tfgraph.scope import (
    ARGUMENT,
    Node,
    Ref,
    Scope,
    dtype_of,
    op_def,
    output_counts,
)

_LEFT_OUT = ("_class", "_output_shapes")
"""Attributes that refer to other nodes, or repeat what TensorFlow finds by itself."""
_numbers = itertools.count()


def eagerly() -> AbstractContextManager[None]:
    """Execute operations at once, also where the caller builds a graph or switched that off."""
    return eager_mode()


@dataclass(frozen=True)
class Program:
    """What is to be compiled. ``fed``: dtype and shape by the node that is fed, in order of the
    arrays. ``passed``: tensors (handles of variables, for instance) by the node they replace."""

    scope: Scope
    fed: Mapping[str, Any]
    passed: Mapping[str, Any]
    library: Mapping[str, Any]
    versions: Any


class Compiled:
    """Calls return arrays of the caller's own, one for each of ``fetches``.

    ``effects`` are nodes that run though nothing fetches them.
    """

    def __init__(
        self, program: Program, fetches: Sequence[Ref], effects: Sequence[str] = ()
    ) -> None:
        scope = program.scope.ancestors([*fetches, *effects])
        outside = {*program.fed, *program.passed}
        graph = graph_def(scope, outside, program.library, program.versions)
        consumed = {ref for node in scope.nodes.values() for ref in node.inputs}

        def body(*given: Any) -> list[Any]:
            building = tf.compat.v1.get_default_graph()
            tensors = dict(zip(program.fed, given, strict=True))
            for name, tensor in program.passed.items():
                if (name, 0) in consumed:
                    tensors[name] = building.capture(tensor)
            used = {f"{n}:0": t for n, t in tensors.items() if (n, 0) in consumed}
            inside = [ref for ref in dict.fromkeys(fetches) if ref[0] not in tensors]
            wanted = [f"{name}:{output}" for name, output in inside]
            imported = tf.graph_util.import_graph_def(
                graph, used, return_elements=[*wanted, *effects], name=""
            )
            found = dict(zip(inside, imported[: len(inside)], strict=True))
            results = [found[ref] if ref in found else tensors[ref[0]] for ref in fetches]
            if not effects:
                return results
            with tf.control_dependencies(imported[len(inside) :]):
                return [tf.identity(tensor) for tensor in results or [True]]

        with eagerly():
            self._function = tf.compat.v1.wrap_function(body, list(program.fed.values()))
        self._given_away = given_away(self._function.outputs)

    def __call__(self, tensors: Sequence[Any]) -> list[Array]:
        """One tensor or array for each fed node. Raises what TensorFlow raises."""
        function = self._function
        with eagerly():
            given = list(map(tf.constant, tensors))
            return owned(call_flat(function, given), self._given_away)


def graph_def(
    scope: Scope, outside: Iterable[str], library: Mapping[str, Any], versions: Any
) -> Any:
    """``scope`` as a GraphDef without the nodes in ``outside``, which are given when it is
    imported. Functions get names that no other graph of this process has."""
    writer = _Writer(library, f"layertap_{next(_numbers)}")
    skipped = set(outside)
    graph = graph_pb2.GraphDef(versions=versions)
    for node in scope.nodes.values():
        if node.name in skipped:
            continue
        proto = graph.node.add()
        writer.node(node, proto)
        proto.input.extend(f"{name}:{output}" for name, output in node.inputs)
        proto.input.extend(f"^{name}" for name in node.controls if name not in skipped)
    graph.library.function.extend(writer.functions.values())
    return graph


@dataclass
class _Writer:
    library: Mapping[str, Any]
    prefix: str
    functions: dict[str, Any] = field(default_factory=dict)
    _renamed: dict[str, str] = field(default_factory=dict)

    def node(self, node: Node, proto: Any) -> None:
        """Name, operation and attributes of a node; functions that it runs are written too."""
        proto.name, proto.op = node.name, node.op
        for key, value in node.proto.attr.items():
            if key not in _LEFT_OUT:
                proto.attr[key].CopyFrom(value)
        if node.branches:
            names = [self._scope(branch) for branch in node.branches]
            self._set_branches(proto, names)
        else:
            self._rename(proto)

    def _set_branches(self, proto: Any, names: list[str]) -> None:
        if "branches" in proto.attr:
            functions = proto.attr["branches"].list.func
            for function, name in zip(functions, names, strict=True):
                function.name = name
            return
        roles = ("cond", "body") if "body" in proto.attr else ("then_branch", "else_branch")
        for role, name in zip(roles, names, strict=True):
            proto.attr[role].func.name = name

    def _rename(self, proto: Any) -> None:
        """Refer to the functions of the graph under their new names."""
        if proto.op in self.library:
            proto.op = self._copy(proto.op)
        for attr in proto.attr.values():
            kind = attr.WhichOneof("value")
            if kind == "func" or kind == "list":
                for function in [attr.func] if kind == "func" else attr.list.func:
                    if function.name in self.library:
                        function.name = self._copy(function.name)

    def _copy(self, name: str) -> str:
        if name in self._renamed:
            return self._renamed[name]
        renamed = self._renamed[name] = f"{self.prefix}_{len(self._renamed)}_{name}"
        function = self.functions[renamed] = function_pb2.FunctionDef()
        function.CopyFrom(self.library[name])
        function.signature.name = renamed
        for proto in function.node_def:
            self._rename(proto)
        return renamed

    def _scope(self, scope: Scope) -> str:
        """Write a scope as a function; its name."""
        name = f"{self.prefix}_{len(self.functions)}"
        function = self.functions[name] = function_pb2.FunctionDef()
        function.signature.name = name
        args = {arg: f"arg{i}" for i, arg in enumerate(scope.args)}
        for arg, own in args.items():
            kind = dtype_of(scope.nodes[arg]).as_datatype_enum
            function.signature.input_arg.add(name=own, type=kind)
        needed = scope.ancestors([*scope.results, *scope.effects])
        refs = _References(scope, args)
        for node in needed.nodes.values():
            if node.op == ARGUMENT:
                continue
            proto = function.node_def.add()
            self.node(node, proto)
            proto.input.extend(map(refs, node.inputs))
            proto.input.extend(f"^{control}" for control in node.controls if control not in args)
        for i, ref in enumerate(scope.results):
            function.signature.output_arg.add(name=f"out{i}", type=refs.dtype(ref))
            function.ret[f"out{i}"] = refs(ref)
        for i, effect in enumerate(effect for effect in scope.effects if effect not in args):
            function.signature.control_output.append(f"effect{i}")
            function.control_ret[f"effect{i}"] = effect
        function.signature.is_stateful = any(
            node.op != ARGUMENT and op_def(node.op).is_stateful for node in needed.nodes.values()
        )
        return name


class _References:
    """Tensors as functions refer to them: ``node:argument:i``."""

    def __init__(self, scope: Scope, args: Mapping[str, str]) -> None:
        self._scope, self._args = scope, args

    def __call__(self, ref: Ref) -> str:
        name, output = ref
        if name in self._args:
            return self._args[name]
        node = self._scope.nodes[name]
        for argument, count in output_counts(op_def(node.op), node.proto.attr):
            if output < count:
                return f"{name}:{argument}:{output}"
            output -= count
        raise AssertionError(f"{node.op} has no output {ref[1]}")

    def dtype(self, ref: Ref) -> int:
        """The dtype, as the number that protos use."""
        name, output = ref
        node = self._scope.nodes[name]
        if node.op == ARGUMENT:
            return int(dtype_of(node).as_datatype_enum)
        definition, attributes = op_def(node.op), node.proto.attr
        defaults = {attr.name: attr.default_value for attr in definition.attr}
        for argument, (_, count) in zip(
            definition.output_arg, output_counts(definition, attributes), strict=True
        ):
            if output >= count:
                output -= count
                continue
            if argument.type:
                return int(argument.type)
            key = argument.type_list_attr or argument.type_attr
            value = attributes[key] if key in attributes else defaults[key]
            return int(value.list.type[output] if argument.type_list_attr else value.type)
        raise AssertionError(f"{node.op} has no output {ref[1]}")
