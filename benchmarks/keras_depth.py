"""What reading every operation, every state and recorded values costs in Keras on TensorFlow.

Operations are compared with the compiled call of the model, states after each step with the
compiled call of the same layer with ``return_sequences=True``.
"""

from __future__ import annotations

import os
import timeit

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from benchmarks.compiled import Call, captures, compiled, ratios
from benchmarks.keras_overhead import cnn, compiled_model, mlp

from layertap.core.graph import COMPUTED
from layertap.recording import record
from layertap.runtimes.keras import open as open_keras

IDLE_SECONDS = 0.2e-6
"""What a ``record`` may take while nobody listens; its row is a ratio to this."""


def lstm(units: int = 128, length: int = 64, features: int = 32) -> keras.Model:
    """One LSTM that returns its output of each step."""
    inputs = keras.Input((length, features))
    outputs = keras.layers.LSTM(units, return_sequences=True, name="lstm")(inputs)
    return keras.Model(inputs, outputs)


def contenders(
    model: keras.Model, batch: int, name: str, depth: str, taps: str | None
) -> dict[str, Call]:
    """The compiled call first, then a capture of ``taps``."""
    function, x = compiled_model(model, batch)
    session = open_keras(model, depth=depth)
    computed = [tap for tap in session.graph if tap.kind in COMPUTED and not tap.untappable]
    chosen = [tap for tap in computed if taps is None or tap.name in taps.split()]
    return {"tf.function(model)": compiled(function, x), **captures(session, x, {name: chosen})}


def rows(rounds: int = 30) -> list[dict[str, object]]:
    """One row per work and contender; ``ratio`` is to ``tf.function(model)``, or to the bar."""
    steps = "lstm lstm:hidden_steps lstm:cell_steps"
    every = "every operation"
    found: list[dict[str, object]] = []
    for work, model, batch, name, depth, taps in (
        ("Keras MLP 16×Dense(256), batch 32", mlp(), 32, every, "ops", None),
        ("Keras CNN 32×32, batch 1", cnn(), 1, every, "ops", None),
        ("Keras CNN 32×32, batch 32", cnn(), 32, every, "ops", None),
        ("Keras LSTM(128), 64 steps, batch 32", lstm(), 32, "cell states", "layers",
         "lstm:cell_steps"),
        ("Keras LSTM(128), 64 steps, batch 32", lstm(), 32, "output, hidden, cell states",
         "layers", steps),
        ("Keras LSTM(128), 64 steps, batch 1", lstm(), 1, "cell states", "layers",
         "lstm:cell_steps"),
    ):  # fmt: skip
        found += ratios(work, contenders(model, batch, name, depth, taps), rounds)
    return [*found, idle()]


def idle(calls: int = 200_000) -> dict[str, object]:
    """``record`` while nobody listens, as a ratio to what it may take."""
    value = np.ones(3)
    best = min(timeit.repeat(lambda: record("name", value), number=calls, repeat=5))
    empty = min(timeit.repeat(lambda: None, number=calls, repeat=5))
    ratio = (best - empty) / calls / IDLE_SECONDS
    return {"work": "0.2 µs", "contender": "record, idle", "ratio": ratio, "bar": 1.0}
