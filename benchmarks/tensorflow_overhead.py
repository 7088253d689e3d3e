"""What reading tensors of a TensorFlow graph costs, as a ratio to the compiled call without.

The compiled call is a ``tf.function``. Its concrete function, called directly, is a contender for
orientation. Opening a graph is in seconds.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from benchmarks.compiled import Call, captures, compiled, ratios

from layertap.core.graph import COMPUTED
from layertap.runtimes.tensorflow import open as open_graph

NODES = 5000
OPENING_SECONDS = 2.0


IMAGES = tf.TensorSpec((None, 32, 32, 3), tf.float32)


class Cnn(tf.Module):
    """Three blocks of convolution, bias, ReLU and depthwise convolution, then a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        sizes = (3, 16, 32, 64)

        def variable(*shape: int) -> tf.Variable:
            return tf.Variable(rng.normal(size=shape).astype(np.float32) / 8)

        self.blocks = [
            (variable(3, 3, before, after), variable(after), variable(3, 3, after, 1))
            for before, after in itertools.pairwise(sizes)
        ]
        self.dense = variable(64, 10)

    @tf.function(input_signature=[IMAGES])
    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.values(x)[-1]

    def values(self, x: tf.Tensor) -> list[tf.Tensor]:
        """What each operation computes, the output last."""
        found = []
        for kernel, bias, depthwise in self.blocks:
            found.append(tf.nn.conv2d(x, kernel, 2, "SAME"))
            found.append(tf.nn.bias_add(found[-1], bias))
            found.append(tf.nn.relu(found[-1]))
            found.append(tf.nn.depthwise_conv2d(found[-1], depthwise, (1, 1, 1, 1), "SAME"))
            found.append(found[-2] + found[-1])
            x = found[-1]
        found.append(tf.reduce_mean(x, (1, 2)))
        found.append(tf.matmul(found[-1], self.dense))
        return [*found, tf.nn.softmax(found[-1])]


def contenders(net: Cnn, batch: int) -> dict[str, Call]:
    """The compiled call first, then the same with taps."""
    x = np.random.default_rng(1).normal(size=(batch, 32, 32, 3)).astype(np.float32)
    concrete = net.__call__.get_concrete_function()
    session = open_graph(concrete)
    ops = [tap for tap in session.graph if tap.kind in COMPUTED and not tap.untappable]
    four = [tap for tap in ops if tap.op == "AddV2"] + ops[-1:]  # the blocks, and the output
    return {
        "tf.function": compiled(net, x),
        **captures(session, x, {"every op": ops, "four taps": four}),
        "its concrete function": compiled(concrete, x),
    }


def opening() -> float:
    """Median seconds to open and list a graph of 5,000 nodes, with constants of 80 MB."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 128), name="x")
        for i in range(NODES // 4):
            x = tf.nn.relu(tf.matmul(x, np.full((128, 128), i, np.float32)) + np.float32(i))
    function = tf.compat.v1.wrap_function(lambda: None, [])  # TensorFlow's first call is slow
    assert function() is None
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        assert len(str(open_graph(graph).graph)) > NODES
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def rows(rounds: int = 30) -> list[dict[str, object]]:
    """One row per work and contender; ``ratio`` is to the ``tf.function``, or seconds."""
    found: list[dict[str, object]] = []
    for batch in (1, 32):
        work = f"TensorFlow CNN 32×32, batch {batch}"
        found += ratios(work, contenders(Cnn(), batch), rounds)
    work = f"opening and listing {NODES:,} nodes"
    seconds = {"contender": "seconds, not a ratio", "ratio": opening(), "bar": OPENING_SECONDS}
    return [*found, {"work": work, **seconds}]
