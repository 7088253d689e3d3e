"""Shapes that TensorFlow by itself does not tell: through loops, branches, lists and tables."""

from __future__ import annotations

import os
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

from layertap.errors import CorruptModel  # noqa: E402
from layertap.runtimes.tfgraph.infer import Type, infer  # noqa: E402
from layertap.runtimes.tfgraph.scope import flatten  # noqa: E402

v1 = tf.compat.v1


def shape_of(function: Any, name: str, fed: tuple[int | None, ...] = (7, 4)) -> Any:
    """The shape of a tensor when x is fed in a shape."""
    graph = tf.Graph()
    with graph.as_default():
        function(v1.placeholder(tf.float32, (None, 4), name="x"))
    definition = graph.as_graph_def()
    types = infer(flatten(definition), {"x": Type(tf.float32, fed)}, definition.versions)
    return types[()][name, 0].shape


@pytest.mark.parametrize("functional", [True, False])
def test_loops_that_keep_their_shape_and_loops_that_do_not(functional: bool) -> None:
    def keeps(x: Any) -> None:
        _, h = tf.while_loop(lambda i, _: i < 3, lambda i, h: (i + 1, h * 2.0), (0, x))
        tf.identity(h, name="end")

    def grows(x: Any) -> None:
        shapes = (tf.TensorShape(()), tf.TensorShape((None, None)))
        body = lambda i, h: (i + 1, tf.concat([h, h], 0))  # noqa: E731
        _, h = tf.while_loop(lambda i, _: i < 3, body, (0, x), shape_invariants=shapes)
        tf.identity(h, name="end")

    if not functional:
        v1.disable_control_flow_v2()
    try:
        assert shape_of(keeps, "end") == (7, 4)
        assert shape_of(grows, "end") == (None, 4)
    finally:
        v1.enable_control_flow_v2()


def test_one_loop_after_another_and_a_list() -> None:
    def build(x: Any) -> None:
        for _ in range(2):
            x = tf.map_fn(lambda row: row + 1.0, x)
        x = tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x[:, :2] @ tf.ones((2, 4)))
        tf.identity(x, name="end")

    assert shape_of(build, "end") == (7, 4)


def test_a_recurrence_over_time_keeps_the_batch() -> None:
    def build(x: Any) -> None:
        steps = tf.reshape(x, (tf.shape(x)[0], 2, 2))
        taken = tf.TensorArray(tf.float32, 2, element_shape=(None, 2)).unstack(
            tf.transpose(steps, (1, 0, 2))
        )
        made = tf.TensorArray(tf.float32, 2, element_shape=(None, 2))
        body = lambda i, a: (i + 1, a.write(i, taken.read(i) * 2.0))  # noqa: E731
        _, made = tf.while_loop(lambda i, _: i < 2, body, (0, made))
        tf.identity(made.stack(), name="end")

    assert shape_of(build, "end") == (2, 7, 2)


def test_branches_that_differ() -> None:
    def build(x: Any) -> None:
        x = tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: x[:, :2])
        tf.identity(x, name="end")

    assert shape_of(build, "end") == (7, None)


def test_a_table_gives_a_value_for_each_key() -> None:
    def build(x: Any) -> None:
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [2.0]), 0.0)
        tf.identity(table.lookup(tf.cast(x, tf.int32)), name="end")

    assert shape_of(build, "end") == (7, 4)


def test_shapes_that_contradict() -> None:
    with pytest.raises(CorruptModel, match="refuses the graph"):
        shape_of(lambda x: tf.matmul(x, tf.ones((4, 2)), name="end"), "end", (7, 5))
