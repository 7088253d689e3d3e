"""Exported Keras models: the same values, the same weights, and nothing of layertap in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import layertap
from layertap.errors import PlanError, StoreError

pytestmark = pytest.mark.slow
X = np.random.default_rng(0).random((2, 3), dtype=np.float32)
TENSORFLOW = keras.backend.backend() == "tensorflow"


def numpy(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


@keras.saving.register_keras_serializable("layertap-tests")
class Pair(layers.Layer):
    def __init__(self, **config):
        super().__init__(**config)
        self.left, self.right = layers.Dense(3, name="left"), layers.Dense(3, name="right")

    def build(self, shape):
        self.left.build(shape)
        self.right.build((*shape[:-1], 3))

    def call(self, x):
        left = self.left(x)
        return left, {"h": keras.ops.relu(self.right(left))}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem = layers.Dense(4, activation="relu", name="stem")
        self.pair = Pair(name="pair")
        self.head = keras.Sequential([layers.Dense(5, name="wide"), layers.Dense(2)], name="head")

    def call(self, x, training=False):
        twice = self.stem(x) + self.stem(x)
        left, rest = self.pair(twice)
        return self.head(left + rest["h"], training=training)


def sequential():
    return keras.Sequential(
        [layers.Dense(4, name="a"), layers.Dropout(0.5, name="drop"), layers.Dense(2, name="b")]
    )


def nested():
    base = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, name="feature"), layers.Dense(3, name="last")],
        name="base",
    )
    x = keras.Input((3,), name="x")
    return keras.Model(x, layers.Dense(2, name="logits")(base(x)))


def shared():
    layer = layers.Dense(3, name="both")
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    return keras.Model([a, b], layers.Add(name="sum")([layer(a), layer(b)]))


CASES = [
    (sequential, "a", X),
    (nested, "base/feature", X),
    (Subclassed, "stem@1 | pair/left | pair:1.h | head/wide", X),
    (shared, "both | both@1", {"a": X, "b": X + 1}),
]


@pytest.mark.parametrize(("make", "taps", "x"), CASES)
@pytest.mark.parametrize("whole", [False, True])
def test_the_outputs_are_the_taps(make, taps, x, whole):
    net = make()
    net(list(x.values()) if isinstance(x, dict) else x)
    with layertap.open(net) as model:
        run = model.capture(x, taps=taps)
        made = model.export(**{"add_outputs" if whole else "until": taps})
        own = [tap.name for tap in model.graph.of_kind("output")] if whole else []
        own_values = model.capture(x, taps=own) if whole else {}
    found = made(x)
    assert sorted(found) == sorted({*own, *run})
    for name, capture in {**own_values, **run}.items():
        np.testing.assert_allclose(numpy(found[name]), capture.values, rtol=1e-5, err_msg=name)


class Around(layers.Layer):
    def __init__(self, inner):
        super().__init__(name="block")
        self.inner = inner

    def call(self, x):
        return keras.ops.relu(self.inner(x))


class Twins(keras.Model):
    """Two layers of one name; what they hold differs in name, as a Functional model demands."""

    def __init__(self):
        super().__init__()
        self.first = Around(layers.Dense(4, name="one"))
        self.second = Around(layers.Dense(2, name="two"))

    def call(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("tap", ["block/one", "block.1/two"])
def test_siblings_of_one_name_are_taken_apart(tap):
    net = Twins()
    net(X)
    with layertap.open(net) as model:
        expected = model.capture(X, tap)[tap].values
        made = model.export(until=tap)
    np.testing.assert_allclose(numpy(made(X)[tap]), expected, rtol=1e-5)


def test_the_model_is_as_before_and_its_weights_are_shared():
    net = sequential()
    net(X)
    names, before = [layer.name for layer in net.layers], numpy(net(X))
    made = layertap.export(net, until="a")
    assert made.layers[-1] is net.layers[0]
    assert [layer.name for layer in net.layers] == names
    np.testing.assert_array_equal(numpy(net(X)), before)
    net.layers[0].kernel.assign(net.layers[0].kernel * 2)
    np.testing.assert_array_equal(numpy(made(X)["a"]), numpy(net.layers[0](X)))


def test_what_is_made_can_be_trained():
    """Dropout is at work in training, as in the model it was taken from."""
    net = sequential()
    net(X)
    made = layertap.export(net, until="drop")
    assert [w.path for w in made.trainable_weights] == [w.path for w in net.layers[0].weights]
    x = np.ones((1000, 3), np.float32)
    assert (numpy(made(x, training=True)["drop"]) == 0).mean() > 0.2
    np.testing.assert_array_equal(numpy(made(x)["drop"]), numpy(net.layers[0](x)))


ALONE = """
import sys, numpy as np
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "layertap":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
x = np.load(sys.argv[1])
if sys.argv[2].endswith(".keras"):
    import keras
    found = keras.saving.load_model(sys.argv[2])(x)
else:
    import tensorflow as tf
    found = tf.saved_model.load(sys.argv[2]).signatures["serving_default"](tf.constant(x))
    keras = None
numpy = keras.ops.convert_to_numpy if keras else np.asarray
np.savez(sys.argv[3], **{name.replace("/", "_"): numpy(value) for name, value in found.items()})
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["features.keras", *(["features"] if TENSORFLOW else [])])
def test_the_file_needs_no_layertap(tmp_path: Path, name: str):
    net = nested()
    assert layertap.export(net, tmp_path / name, until="base/feature") == tmp_path / name
    np.save(tmp_path / "x.npy", X)
    arguments = [tmp_path / "x.npy", tmp_path / name, tmp_path / "found.npz"]
    subprocess.run([sys.executable, "-c", ALONE, *map(str, arguments)], check=True, timeout=120)
    found = np.load(tmp_path / "found.npz")
    assert list(found) == ["base_feature"]
    expected = net.get_layer("base").get_layer("feature")(X)
    np.testing.assert_allclose(found["base_feature"], numpy(expected), rtol=1e-5)


def test_what_is_there_is_not_overwritten(tmp_path: Path):
    net = nested()
    (tmp_path / "folder").mkdir()
    with pytest.raises(PlanError, match="is a folder already"):
        layertap.export(net, tmp_path / "folder", until="base")
    with pytest.raises(PlanError, match="no folder"):
        layertap.export(net, tmp_path / "no" / "model.keras", until="base")
    net.save(tmp_path / "net.keras")
    with pytest.raises(StoreError, match="is the model itself"):
        layertap.export(tmp_path / "net.keras", tmp_path / "net.keras", until="base")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "net.keras"]


class Raw(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2, name="dense")

    def call(self, x):
        import tensorflow as tf

        return tf.nn.softmax(self.dense(x))


@pytest.mark.skipif(not TENSORFLOW, reason="TensorFlow's own functions")
def test_what_keras_cannot_express_is_said():
    net = Raw()
    net(X)
    with layertap.open(net) as model:
        with pytest.raises(PlanError, match="has seen an example"):
            model.export(until="dense")
        model.trace(X)
        with pytest.raises(PlanError, match="does not run on symbolic tensors"):
            model.export(add_outputs="dense")
    with pytest.raises(PlanError, match="no layer returns it"):
        layertap.export(nested(), until="kind:weight & *logits*")


def test_what_no_layer_returns_is_said():
    inputs = keras.Input((4, 2), name="x")
    net = keras.Model(inputs, keras.layers.LSTM(3, name="lstm")(inputs))
    with layertap.open(net) as model:
        for name in ("x", "lstm/lstm_cell/kernel", "lstm:cell"):
            with pytest.raises(PlanError, match="no layer returns it"):
                model.export(until=name)
        if "lstm/lstm_cell" in model.graph:
            with pytest.raises(PlanError, match="in the loop of a recurrent layer"):
                model.export(until="lstm/lstm_cell")
