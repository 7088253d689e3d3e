"""The files that ship with the demo."""

from __future__ import annotations

import numpy as np

import layertap
from layertap.demo import asset, digits

MODELS = ("digits.keras", "digits_float.tflite", "digits_int8.tflite")


def test_the_models_are_small():
    assert sum(asset(name).stat().st_size for name in MODELS) < 200_000


def test_digits():
    held_out = digits()
    assert held_out.image.shape == (32, 8, 8, 1)
    assert held_out.image.dtype == np.float32
    assert (held_out.image.min(), held_out.image.max()) == (0, 1)
    assert set(held_out.label.tolist()) == set(range(10))


def test_operators_of_the_int8_model():
    with layertap.open(asset("digits_int8.tflite")) as model:
        operators = {tap.op for tap in model.graph if tap.kind in ("activation", "output")}
        dtypes = {tap.dtype for tap in (*model.graph.inputs, *model.graph.outputs)}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "SOFTMAX"} <= operators
    assert dtypes == {"int8"}


def test_float_model_runs_in_both_runtimes():
    for runtime in ("litert", "tflm"):
        with layertap.open(asset("digits_float.tflite"), runtime) as model:
            scores = model.capture(digits().image)["probabilities"].values
        assert (scores.argmax(1) == digits().label).mean() > 0.95
