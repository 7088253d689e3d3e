"""Counting iterations without running a loop."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

from layertap.runtimes.tfgraph.iterations import MOST, iterations  # noqa: E402
from layertap.runtimes.tfgraph.scope import flatten  # noqa: E402


def counted(condition: Callable[..., Any], body: Callable[..., Any], *start: Any) -> int | None:
    """The iterations of a loop that starts with these numbers; x is not known."""

    def function(x: Any) -> Any:
        return tf.while_loop(condition, body, (*start, x))

    spec = tf.TensorSpec((2,), tf.float32)
    scope = flatten(tf.function(function).get_concrete_function(spec).graph.as_graph_def())
    (loop,) = (node for node in scope.nodes.values() if node.branches)

    def value(name: str) -> Any:
        node = scope.nodes[name]
        known = node.op == "Const"
        return tf.make_ndarray(node.proto.attr["value"].tensor) if known else None

    return iterations(loop, [value(name) for name, _ in loop.inputs])


def test_counters() -> None:
    assert counted(lambda i, _: i < 7, lambda i, x: (i + 2, x * 2), 0) == 4
    assert counted(lambda i, _: i > 0, lambda i, x: (i - 1, x), 5) == 5
    assert counted(lambda i, _: i < 0, lambda i, x: (i + 1, x), 0) == 0
    by_another = lambda i, j, x: (j, i + j, x)  # noqa: E731
    assert counted(lambda i, j, _: i < 10, by_another, 1, 1) == 6  # Fibonacci


def test_what_only_the_input_tells() -> None:
    assert counted(lambda i, x: tf.reduce_sum(x) < 9, lambda i, x: (i + 1, x + 1), 0) is None
    later = lambda i, x: (tf.cast(x[0], tf.int32), x)  # noqa: E731
    assert counted(lambda i, _: i < 3, later, 0) is None


def test_a_loop_that_does_not_end_is_not_waited_for() -> None:
    assert counted(lambda i, _: i >= 0, lambda i, x: (i * 0, x), 0) is None
    assert counted(lambda i, _: i < MOST * 2, lambda i, x: (i + 1, x), 0) is None
    top = np.int32(2**31 - 1)
    assert counted(lambda i, _: i > 0, lambda i, x: (i + 1, x), top) == 1  # it wraps around
