"""What reading tensors of a TensorFlow graph costs, as a ratio to the compiled call without.

``python -m benchmarks.tensorflow_overhead`` prints a table. The compiled call is a ``tf.function``
on the same array, its output as NumPy; the captures are NumPy arrays too. Its concrete function,
called directly, is a contender for orientation. Opening a graph is in seconds.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from benchmarks.timing import interleaved

from layertap.core.graph import COMPUTED
from layertap.runtimes.tensorflow import open as open_graph

CALLS = 20
"""Calls in one timed step: single ones are too short to time beside a garbage collection."""
ALL_OPS = 1.3
FOUR_TAPS = 1.02
NODES = 5000
OPENING_SECONDS = 2.0


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

    @tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3), tf.float32)])
    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        for kernel, bias, depthwise in self.blocks:
            y = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 2, "SAME"), bias))
            x = y + tf.nn.depthwise_conv2d(y, depthwise, (1, 1, 1, 1), "SAME")
        return tf.nn.softmax(tf.matmul(tf.reduce_mean(x, (1, 2)), self.dense))


def contenders(net: Cnn, batch: int) -> dict[str, Callable[[], object]]:
    """The compiled call first, then the same with taps."""
    x = np.random.default_rng(1).normal(size=(batch, 32, 32, 3)).astype(np.float32)
    concrete = net.__call__.get_concrete_function()
    session = open_graph(concrete)
    ops = [tap for tap in session.graph if tap.kind in COMPUTED and not tap.untappable]
    four = [tap for tap in ops if tap.op == "AddV2"] + ops[-1:]  # the blocks, and the output
    feed = {session.inputs[0].name: x}
    passes = {"every op": session.prepare(ops), "four taps": session.prepare(four)}

    def capture(name: str) -> Callable[[], object]:
        def emit(tap: object, value: object) -> None:
            pass

        return lambda: passes[name](feed, emit)

    return {
        "tf.function": lambda: net(tf.constant(x)).numpy(),
        **{name: capture(name) for name in passes},
        "its concrete function": lambda: concrete(tf.constant(x)).numpy(),
    }


def often(call: Callable[[], object]) -> Callable[[], object]:
    def calls() -> None:
        for _ in range(CALLS):
            call()

    return calls


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


def rows(rounds: int = 60) -> list[dict[str, object]]:
    """One row per work and contender; ``ratio`` is to the ``tf.function``, or seconds."""
    bars = {"every op": ALL_OPS, "four taps": FOUR_TAPS}
    found: list[dict[str, object]] = []
    for batch in (1, 32):
        work = f"TensorFlow CNN 32×32, batch {batch}"
        timed = {key: often(call) for key, call in contenders(Cnn(), batch).items()}
        found += [
            {"work": work, "contender": key, "ratio": ratio, "bar": bars.get(key)}
            for key, ratio in list(interleaved(timed, rounds).items())[1:]
        ]
    work = f"opening and listing {NODES:,} nodes"
    seconds = {"contender": "seconds, not a ratio", "ratio": opening(), "bar": OPENING_SECONDS}
    return [*found, {"work": work, **seconds}]


if __name__ == "__main__":
    for row in rows():
        bar = "" if row["bar"] is None else f"  (bar {row['bar']})"
        print(f"{row['work']:36} {row['contender']:24} {row['ratio']:.3f}{bar}")
