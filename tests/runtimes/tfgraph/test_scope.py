"""Graphs as flat scopes: calls inlined, order kept, names that people can place."""

from __future__ import annotations

import os
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

from layertap.errors import CorruptModel  # noqa: E402
from layertap.runtimes.tfgraph.scope import flatten, readable  # noqa: E402


def traced(function: Any, *specs: Any) -> Any:
    return tf.function(function).get_concrete_function(*specs).graph.as_graph_def()


ROW = tf.TensorSpec((None, 3), tf.float32)


def test_names_of_functions() -> None:
    assert readable("__inference_step_17") == "step"
    assert readable("__inference__half_24_1") == "half"
    assert readable("__forward_<lambda>_3") == "lambda"
    assert readable("while_body_3_rewritten") == "while_body_3_rewritten"
    assert readable("__inference_<>_3") == "call"


def test_calls_are_inlined_and_results_found_again() -> None:
    @tf.function
    def inner(x: Any) -> Any:
        return x, tf.add(x, 1.0, name="sum")

    def outer(x: Any) -> Any:
        same, more = inner(x)
        return inner(more)[1] + same

    graph = traced(outer, ROW)
    (last,) = (node.name for node in graph.node if node.op == "AddV2")
    call = next(node.name for node in graph.node if "PartitionedCall" in node.op)
    scope = flatten(graph, [f"{call}:1", f"{last}:0"])
    assert not [node for node in scope.nodes.values() if "Call" in node.op]
    assert {"inner/sum", "inner_1/sum"} <= set(scope.nodes)
    assert scope.nodes[scope.results[0][0]].op == "Identity"
    assert scope.results[1] == (last, 0)


def test_what_waits_for_a_call_waits_for_what_it_does() -> None:
    total = tf.Variable(0.0)

    @tf.function
    def count() -> None:
        total.assign_add(1.0)

    def outer(x: Any) -> Any:
        count()
        return x * total

    scope = flatten(traced(outer, ROW))
    (change,) = (n.name for n in scope.nodes.values() if n.op == "AssignAddVariableOp")
    reads = [n for n in scope.nodes.values() if n.op == "ReadVariableOp"]
    order = list(scope.nodes)
    later = [read for read in reads if order.index(read.name) > order.index(change)]
    assert any(change in scope.ancestors([read.name]).nodes for read in later)


def test_a_function_that_calls_itself_ends() -> None:
    graph = traced(lambda x: x + 1.0, ROW)
    body = graph.library.function.add()
    body.signature.name = "again"
    body.signature.input_arg.add(name="x", type=tf.float32.as_datatype_enum)
    body.signature.output_arg.add(name="y", type=tf.float32.as_datatype_enum)
    for nodes in (body.node_def, graph.node):
        call = nodes.add(name="call", op="PartitionedCall")
        call.attr["f"].func.name = "again"
        for key in ("Tin", "Tout"):
            call.attr[key].list.type.append(tf.float32.as_datatype_enum)
        call.input.append("x")
    body.ret["y"] = "call:output:0"
    (left,) = (n for n in flatten(graph).nodes.values() if n.op == "PartitionedCall")
    assert left.name.endswith("/call")


def test_damage_is_named() -> None:
    graph = traced(lambda x: tf.while_loop(lambda i: i < 3, lambda i: (i + 1,), (0,)), ROW)
    for function in list(graph.library.function):
        if "body" in function.signature.name:
            graph.library.function.remove(function)
    with pytest.raises(CorruptModel, match="no function '.*body"):
        flatten(graph)
    graph = traced(lambda x: tf.add(x, 1.0, name="sum"), ROW)
    graph.node.add().CopyFrom(graph.node[0])
    with pytest.raises(CorruptModel, match="share a name"):
        flatten(graph)
    with pytest.raises(CorruptModel, match="no node 'sum_of_all'"):
        flatten(graph, keep=["sum_of_all"])
