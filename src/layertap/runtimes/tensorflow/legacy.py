"""Reference variables of TensorFlow 1 as resource variables, which functions can take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tensorflow.core.framework import node_def_pb2

from layertap.runtimes.tfgraph.accumulate import Builder
from layertap.runtimes.tfgraph.scope import Node, Scope, dtype_of, op_def, ordered

_KINDS = ("VariableV2", "Variable")
_ASSIGNMENTS = {
    "Assign": "AssignVariableOp",
    "AssignAdd": "AssignAddVariableOp",
    "AssignSub": "AssignSubVariableOp",
}


def modernized(scope: Scope) -> tuple[Scope, dict[str, str]]:
    """``scope`` with resource variables in place of reference variables, and why some nodes (those
    that change references in ways that resources do not know) cannot run."""
    references = {node.name: node for node in scope.nodes.values() if node.op in _KINDS}
    if not references:
        return scope, {}
    build = Builder(dict(scope.nodes))
    broken: dict[str, str] = {}
    for node in scope.nodes.values():
        if node.name in references:
            build.nodes[node.name] = _resource(node)
        elif any(ref[0] in references for ref in node.inputs):
            reason = _convert(build, node, references)
            if reason:
                broken[node.name] = reason
    return ordered(replace(scope, nodes=build.nodes)), broken


def _resource(node: Node) -> Node:
    proto = node_def_pb2.NodeDef()
    for key in ("dtype", "shape", "shared_name", "container"):
        if key in node.proto.attr:
            proto.attr[key].CopyFrom(node.proto.attr[key])
    return Node(node.name, "VarHandleOp", (), node.controls, proto)


def _convert(build: Builder, node: Node, references: Mapping[str, Node]) -> str:
    """Let a node read the variable's value, or assign it; why not, if neither works."""
    variable = references.get(node.inputs[0][0])
    if node.op in _ASSIGNMENTS and variable is not None:
        types = {"dtype": dtype_of(variable)}
        op = _ASSIGNMENTS[node.op]
        name, _ = build.add(op, node.inputs, node.controls, types=types)
        read = node_def_pb2.NodeDef()
        read.attr["dtype"].type = variable.proto.attr["dtype"].type
        build.nodes[node.name] = Node(node.name, "ReadVariableOp", node.inputs[:1], (name,), read)
        return ""
    by_reference = [argument.is_ref for argument in op_def(node.op).input_arg]
    inputs = []
    for i, ref in enumerate(node.inputs):
        variable = references.get(ref[0])
        if variable is None:
            inputs.append(ref)
            continue
        if i < len(by_reference) and by_reference[i]:
            placeholder = node_def_pb2.NodeDef()
            placeholder.attr["dtype"].type = variable.proto.attr["dtype"].type
            build.nodes[node.name] = Node(node.name, "Placeholder", (), (), placeholder)
            return f"{node.op} changes a variable of TensorFlow 1 in a way that is not supported"
        types = {"dtype": dtype_of(variable)}
        inputs.append(build.add("ReadVariableOp", (ref,), node.controls, types=types))
    build.nodes[node.name] = replace(node, inputs=tuple(inputs))
    return ""
