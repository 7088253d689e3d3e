"""What reading layers costs in Keras on TensorFlow, as a ratio to the compiled call without.

The compiled call is ``tf.function(model)``. The leanest way to run that function (its concrete
function, called directly) is a contender for orientation.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from benchmarks.compiled import Call, captures, compiled, ratios

from layertap.core.dtypes import Array
from layertap.core.graph import COMPUTED
from layertap.runtimes.keras import open as open_keras

L = keras.layers


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


def compiled_model(model: keras.Model, batch: int) -> tuple[Any, Array]:
    """A ``tf.function`` that calls ``model``, and what to call it on."""
    x = np.random.default_rng(0).normal(size=(batch, *model.input_shape[1:])).astype(np.float32)
    signature = [tf.TensorSpec((None, *x.shape[1:]), tf.float32)]
    return tf.function(lambda x: model(x, training=False), input_signature=signature), x


def contenders(model: keras.Model, batch: int) -> dict[str, Call]:
    """The compiled call first, then the same with taps."""
    function, x = compiled_model(model, batch)
    session = open_keras(model)
    layers = [tap for tap in session.graph if tap.kind in COMPUTED]
    four = layers[:: len(layers) // 3][:3] + layers[-1:]
    return {
        "tf.function(model)": compiled(function, x),
        **captures(session, x, {"all layers": layers, "four taps": four}),
        "its concrete function": compiled(function.get_concrete_function(), x),
    }


def rows(rounds: int = 30) -> list[dict[str, object]]:
    """One row per work and contender; ``ratio`` is to ``tf.function(model)``."""
    found: list[dict[str, object]] = []
    for name, model, batch in (
        ("Keras MLP 16×Dense(256), batch 32", mlp(), 32),
        ("Keras CNN 32×32, batch 1", cnn(), 1),
        ("Keras CNN 32×32, batch 32", cnn(), 32),
    ):
        found += ratios(name, contenders(model, batch), rounds)
    return found
