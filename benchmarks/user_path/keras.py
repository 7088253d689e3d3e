"""Keras on TensorFlow: a run of twenty batches, one capture, the first one, ``attach`` to eager
calls. The compiled call is ``tf.function(model)``, from NumPy to NumPy; by hand is the same of a
model that has every layer's output as an output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from benchmarks.keras_overhead import cnn, compiled_model, mlp
from benchmarks.user_path.compiled import Compiled, first_call, one_capture, run
from benchmarks.user_path.goals import HAND, Call, Row, compared

import layertap

STEPS = 10
WORKS: tuple[tuple[str, Callable[[], keras.Model], int], ...] = (
    ("Keras MLP 16×Dense(256), batch 32", mlp, 32),
    ("Keras CNN 32×32, batch 1", cnn, 1),
    ("Keras CNN 32×32, batch 32", cnn, 32),
)


def extractor(model: keras.Model) -> keras.Model:
    """The model whose outputs are those of all layers."""
    layers = [
        layer.output for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)
    ]
    return keras.Model(model.inputs[0], layers)


def rows() -> list[Row]:
    return [row for work in WORKS for row in _work(*work)]


def _work(name: str, make: Callable[[], keras.Model], batch: int) -> Iterator[Row]:
    model = make()
    function, x = compiled_model(model, batch)
    compiled = Compiled(
        function, compiled_model(extractor(model), batch)[0], layertap.open(model), x
    )
    yield from run(name, compiled)
    yield from one_capture(name, compiled)
    yield from first_call(name, lambda: (model := make(), compiled_model(model, batch)[0]), x)
    if batch > 1:
        yield from _eager(name, model, x)


def _eager(name: str, model: keras.Model, x: np.ndarray[Any, Any]) -> list[Row]:
    """Calls of the model itself, which its user makes."""
    reading = extractor(model)

    def attached() -> None:
        with layertap.attach(model) as taps:
            for _ in range(STEPS):
                model(x)
                _ = [taps[name] for name in taps]

    contenders: dict[str, Call] = {
        HAND: lambda: [[np.asarray(value) for value in reading(x)] for _ in range(STEPS)],
        "no taps": lambda: [model(x) for _ in range(STEPS)],
        "layertap.attach, all values read": attached,
    }
    return compared(f"{name}: {STEPS} eager calls", contenders, {}, budget=4)
