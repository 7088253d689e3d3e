"""What reading layers costs in Keras on TensorFlow, as a ratio to the compiled call without.

``python -m benchmarks.keras_overhead`` prints a table. The compiled call is ``tf.function(model)``
on the same array, its output as NumPy; the captures are NumPy arrays too. The leanest way to run
that function (its concrete function, called directly) is a contender for orientation.
"""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from benchmarks.timing import interleaved

from layertap.core.graph import COMPUTED
from layertap.runtimes.keras import open as open_keras

L = keras.layers
CALLS = 20
"""Calls in one timed step: single ones are too short to time beside a garbage collection."""
ALL_LAYERS = 1.10
FOUR_TAPS = 1.02


def mlp() -> keras.Model:
    """16 dense layers of 256 units."""
    layers = [L.Dense(256, activation="relu") for _ in range(16)]
    return keras.Sequential([keras.Input((256,)), *layers])


def cnn() -> keras.Model:
    """Three residual blocks of convolution, normalization and depthwise convolution."""
    x = image = keras.Input((32, 32, 3))
    for filters in (16, 32, 64):
        y = L.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        y = L.ReLU()(L.BatchNormalization()(y))
        x = L.Add()([y, L.DepthwiseConv2D(3, padding="same")(y)])
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(image, L.Dense(10, activation="softmax")(x))


def contenders(model: keras.Model, batch: int) -> dict[str, Callable[[], object]]:
    """The compiled call first, then the same with taps."""
    x = np.random.default_rng(0).normal(size=(batch, *model.input_shape[1:])).astype(np.float32)
    signature = [tf.TensorSpec((None, *x.shape[1:]), tf.float32)]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    concrete = function.get_concrete_function()
    session = open_keras(model)
    layers = [tap for tap in session.graph if tap.kind in COMPUTED]
    four = layers[:: len(layers) // 3][:3] + layers[-1:]
    feed = {session.inputs[0].name: x}
    passes = {"all layers": session.prepare(layers), "four taps": session.prepare(four)}

    def capture(name: str) -> Callable[[], object]:
        def emit(tap: object, value: object) -> None:
            pass

        return lambda: passes[name](feed, emit)

    return {
        "tf.function(model)": lambda: function(tf.constant(x)).numpy(),
        **{name: capture(name) for name in passes},
        "its concrete function": lambda: concrete(tf.constant(x)).numpy(),
    }


def often(call: Callable[[], object]) -> Callable[[], object]:
    def calls() -> None:
        for _ in range(CALLS):
            call()

    return calls


def rows(rounds: int = 60) -> list[dict[str, object]]:
    """One row per work and contender; ``ratio`` is to ``tf.function(model)``."""
    bars = {"all layers": ALL_LAYERS, "four taps": FOUR_TAPS}
    found: list[dict[str, object]] = []
    for name, model, batch in (
        ("Keras MLP 16×Dense(256), batch 32", mlp(), 32),
        ("Keras CNN 32×32, batch 1", cnn(), 1),
        ("Keras CNN 32×32, batch 32", cnn(), 32),
    ):
        timed = {key: often(call) for key, call in contenders(model, batch).items()}
        ratios = interleaved(timed, rounds)
        found += [
            {"work": name, "contender": key, "ratio": ratio, "bar": bars.get(key)}
            for key, ratio in list(ratios.items())[1:]
        ]
    return found


if __name__ == "__main__":
    for row in rows():
        bar = "" if row["bar"] is None else f"  (bar {row['bar']})"
        print(f"{row['work']:36} {row['contender']:24} {row['ratio']:.3f}{bar}")
