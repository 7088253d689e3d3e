"""Scopes as functions: two graphs with functions of one name, and dead ends."""

from __future__ import annotations

import os

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

from layertap.runtimes.tfgraph.compiled import Compiled, Program  # noqa: E402
from layertap.runtimes.tfgraph.scope import flatten  # noqa: E402

ROW = tf.TensorSpec((None, 3), tf.float32)


def looping(factor: float) -> Program:
    """x times ``factor``, three times, in a loop whose functions always have the same names, and
    an operation that runs a function that nobody inlines."""

    def function(x):  # type: ignore[no-untyped-def]
        _, h = tf.while_loop(lambda i, _: i < 3, lambda i, h: (i + 1, h * factor), (0, x))
        each = tf.data.Dataset.from_tensor_slices(h).map(lambda row: row * factor)
        return tf.add(h, each.reduce(tf.zeros(3), lambda a, b: a + b), name="end")

    graph = tf.function(function).get_concrete_function(ROW).graph.as_graph_def()
    text = graph.SerializeToString()
    for i, one in enumerate(graph.library.function):
        name = one.signature.name.encode()
        text = text.replace(name, f"f{i}".ljust(len(name), "_").encode())
    graph = type(graph).FromString(text)
    library = {one.signature.name: one for one in graph.library.function}
    return Program(flatten(graph), {"x": ROW}, {}, library, graph.versions)


def test_functions_of_two_graphs_do_not_get_mixed_up() -> None:
    x = np.ones((2, 3), np.float32)
    both = [Compiled(looping(factor), [("end", 0)]) for factor in (2.0, 3.0)]
    assert [run([x])[0][0, 0] for run in both] == [8 + 2 * 16, 27 + 2 * 81]


def test_results_are_the_callers() -> None:
    run = Compiled(looping(2.0), [("end", 0), ("end", 0)])
    x = np.ones((2, 3), np.float32)
    for _ in range(2):
        one, other = run([x])
        one[...] = 0
        assert other[0, 0] == 40


def test_results_that_are_views_for_some_sizes_only_are_the_callers_too() -> None:
    def function(x):  # type: ignore[no-untyped-def]
        y = tf.multiply(x, 2.0, name="y")
        tf.transpose(y, (0, 2, 1), name="turned")
        tf.reduce_sum(y, 1, name="sum")
        tf.reduce_mean(y, 1, name="mean")
        return y

    spec = tf.TensorSpec((None, None, 3), tf.float32)
    graph = tf.function(function).get_concrete_function(spec).graph.as_graph_def()
    program = Program(flatten(graph), {"x": spec}, {}, {}, graph.versions)
    run = Compiled(program, [(name, 0) for name in ("y", "turned", "sum", "mean")])
    for length in (5, 1):
        results = run([np.ones((2, length, 3), np.float32)])
        for i, one in enumerate(results):
            assert not any(np.shares_memory(one, other) for other in results[i + 1 :])
