"""The shared .h5 models and fresh conversions of them, against what plain Keras compiles."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

import layertap  # noqa: E402

pytestmark = [
    pytest.mark.slow,  # whole models
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's compiler"),
]


def compiled(net, x, names):
    """The outputs of layers, from one compiled call of a model that returns just these."""
    outputs = {name: net.get_layer(name).output for name in names}
    part = keras.Model(net.inputs, outputs)
    found = tf.function(lambda x: part(x, training=False))(tf.constant(x))
    return {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize("name", ["resnet.h5", "ad01.h5"])
def test_layers_equal_plain_keras_bit_for_bit(shared: Path, tmp_path: Path, name: str):
    with layertap.open(shared / "models" / "mlperf-tiny" / name) as model:
        net = model.session._model
        shape = [2 if size is None else size for size in net.inputs[0].shape]
        x = np.random.default_rng(0).random(shape, dtype=np.float32)
        run = model.capture(x)
        expected = compiled(net, x, list(run))
        for tap in run:
            np.testing.assert_array_equal(run[tap].raw, expected[tap], err_msg=tap)
        net.export(str(tmp_path / "converted"), verbose=False)
    rectified = [
        layer.name
        for layer in net.layers
        if isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.relu
    ]
    with layertap.open(tmp_path / "converted") as model:
        again = model.capture(x, taps="op:Relu")
    assert len(again) == len(rectified) > 5
    expected = compiled(net, x, rectified)
    for tap, layer in zip(again, rectified, strict=True):
        np.testing.assert_array_equal(again[tap].raw, expected[layer], err_msg=tap)
