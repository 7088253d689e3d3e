"""Models as TensorFlow's converter writes them: loops, variables, signatures, int16, open sizes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import layertap
from layertap.errors import Untappable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
    ),
]

CONVERT = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
from pathlib import Path
import numpy as np, tensorflow as tf
out = Path(sys.argv[1])

class Loop(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32)])
    def run(self, x):
        _, y = tf.while_loop(
            lambda i, y: i < 3, lambda i, y: (i + 1, y * 2 + 1), [tf.constant(0), x])
        return tf.nn.relu(y - 1) * 2

class Counter(tf.Module):
    def __init__(self):
        super().__init__()
        self.v = tf.Variable(tf.ones([1, 3]))
    @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32)])
    def run(self, x):
        self.v.assign_add(x)
        return self.v * 2

class Sequence(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, None, 4], tf.float32)])
    def run(self, x):
        w = tf.constant(np.arange(12).reshape(4, 3), tf.float32)
        return tf.reduce_sum(tf.nn.relu(tf.matmul(x, w) - 9), axis=1)

class Two(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32, name="a")])
    def encode(self, a): return {"code": tf.nn.relu(a * 3) + 1}
    @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32, name="b")])
    def decode(self, b): return {"text": tf.nn.relu(b - 3) + 2}

def write(name, converter): (out / name).write_bytes(converter.convert())
def of(module):
    return tf.lite.TFLiteConverter.from_concrete_functions(
        [module.run.get_concrete_function()], module)
write("loop.tflite", of(Loop()))
write("sequence.tflite", of(Sequence()))
counter = of(Counter())
counter.experimental_enable_resource_variables = True
write("counter.tflite", counter)
two = Two()
tf.saved_model.save(two, str(out / "two"), signatures={
    "encode": two.encode.get_concrete_function(), "decode": two.decode.get_concrete_function()})
write("two.tflite", tf.lite.TFLiteConverter.from_saved_model(str(out / "two")))
tf.keras.utils.set_random_seed(0)
net = tf.keras.Sequential([
    tf.keras.layers.Input((8, 8, 2)), tf.keras.layers.Conv2D(4, 3, activation="relu"),
    tf.keras.layers.Flatten(), tf.keras.layers.Dense(5, activation="softmax")])
int16 = tf.lite.TFLiteConverter.from_keras_model(net)
int16.optimizations = [tf.lite.Optimize.DEFAULT]
int16.representative_dataset = lambda: (
    [np.random.default_rng(i).normal(size=(1, 8, 8, 2)).astype(np.float32)] for i in range(8))
int16.target_spec.supported_ops = [
    tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
write("int16.tflite", int16)
x = np.random.default_rng(1).normal(size=(1, 8, 8, 2)).astype(np.float32)
np.save(out / "x.npy", x)
np.save(out / "conv.npy", net.layers[0](x).numpy())
"""

RUNTIMES = ("litert", "tflm")


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    command = [sys.executable, "-c", CONVERT, str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    return folder


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_loop(converted: Path, runtime: str) -> None:
    x = np.array([[0, 1, -2]], np.float32)
    with layertap.open(converted / "loop.tflite", runtime=runtime) as model:
        run = model.capture(x)
        (value,) = (c.raw for c in run.values() if c.tap.op == "WHILE" and c.tap.dtype != "int32")
        np.testing.assert_array_equal(value, x * 8 + 7)
        inside = next(tap.name for tap in model.graph if tap.subgraph and tap.op == "MUL")
        with pytest.raises(Untappable, match="a subgraph that WHILE runs"):
            model.capture(x, taps=inside)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_variable(converted: Path, runtime: str) -> None:
    x = np.array([[0, 1, -2], [1, 1, 1]], np.float32)
    path = converted / "counter.tflite"
    with layertap.open(path, runtime=runtime) as model:
        output = model.graph.outputs[0].name
        np.testing.assert_array_equal(model.capture(x)[output].raw, (1 + x) * 2)
    with layertap.open(path, runtime=runtime, keep_state=True) as model:
        np.testing.assert_array_equal(model.capture(x)[output].raw, (1 + x.cumsum(0)) * 2)


def test_sequence_of_any_length(converted: Path) -> None:
    with layertap.open(converted / "sequence.tflite", runtime="litert") as model:
        for length in (1, 4):
            x = np.arange(8 * length, dtype=np.float32).reshape(2, length, 4)
            output = model.graph.outputs[0].name
            w = np.arange(12, dtype=np.float32).reshape(4, 3)
            expected = np.maximum(x @ w - 9, 0).sum(1)
            np.testing.assert_array_equal(model.capture(x)[output].raw, expected)


def test_each_signature(converted: Path) -> None:
    x = np.array([[0, 1, 5]], np.float32)
    expected = {"encode": np.maximum(x * 3, 0) + 1, "decode": np.maximum(x - 3, 0) + 2}
    for signature, value in expected.items():
        with layertap.open(
            converted / "two.tflite", runtime="litert", signature=signature
        ) as model:
            run = model.capture(x)
            output = model.graph.outputs[0].name
            np.testing.assert_array_equal(run[output].raw, value)
            assert len(run) == 2


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int16_activations(converted: Path, runtime: str) -> None:
    with layertap.open(converted / "int16.tflite", runtime=runtime) as model:
        (tap,) = (tap for tap in model.graph if tap.op == "CONV_2D")
        assert tap.dtype == "int16"
        capture = model.capture(np.load(converted / "x.npy"))[tap.name]
        expected = np.load(converted / "conv.npy")
        np.testing.assert_allclose(capture.values, expected, atol=0.02)
