"""TensorFlow: a run of twenty batches, one capture, the first one, of a ``tf.function``; by hand is
a ``tf.function`` that returns what each operation computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from benchmarks.tensorflow_overhead import IMAGES, Cnn
from benchmarks.user_path.compiled import Compiled, first_call, one_capture, run
from benchmarks.user_path.goals import Row

import layertap


def rows() -> list[Row]:
    return [row for batch in (1, 32) for row in _work(batch)]


def _work(batch: int) -> Iterator[Row]:
    name, net = f"TensorFlow CNN 32×32, batch {batch}", Cnn()
    x = np.random.default_rng(1).normal(size=(batch, 32, 32, 3)).astype(np.float32)
    reading = tf.function(net.values, input_signature=[IMAGES])
    compiled = Compiled(net.__call__, reading, layertap.open(net.__call__), x)
    yield from run(name, compiled)
    yield from one_capture(name, compiled)
    yield from first_call(name, _made, x)


def _made() -> tuple[Any, Any]:
    net = Cnn()
    function = tf.function(lambda x: net.values(x)[-1], input_signature=[IMAGES])
    return function, function
