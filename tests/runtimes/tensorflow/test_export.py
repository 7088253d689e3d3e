"""Exported TensorFlow models: the same values, in plain TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

import layertap  # noqa: E402
from layertap.errors import PlanError  # noqa: E402

ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


class Net(tf.Module):
    def __init__(self):
        super().__init__()
        self.first = tf.Variable(tf.random.normal((4, 5), seed=1), name="first")
        self.last = tf.Variable(tf.random.normal((5, 2), seed=2), name="last")

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="row")])
    def serve(self, row):
        hidden = tf.nn.relu(tf.matmul(row, self.first, name="product"), name="hidden")
        looped = tf.while_loop(
            lambda i, x: i < 3, lambda i, x: (i + 1, tf.tanh(x, name="inner")), (0, hidden)
        )[1]
        return {"scores": tf.matmul(looped, self.last, name="scores")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    net = Net()
    tf.saved_model.save(net, str(tmp_path / "net"), {"serving_default": net.serve})
    return tmp_path / "net"


@pytest.mark.parametrize("whole", [False, True])
def test_the_outputs_are_the_taps(folder: Path, whole: bool):
    target = folder.with_name("made")
    how = {"add_outputs" if whole else "until": "*product | *hidden"}
    with layertap.open(folder) as model:
        run = model.capture(ROWS, taps="*product | *hidden | kind:output")
        assert model.export(target, **how) == target
    loaded = tf.saved_model.load(str(target)).signatures["serving_default"]
    found = loaded(row=tf.constant(ROWS))
    assert set(found) == {"product", "hidden"} | ({"Identity"} if whole else set())
    for name, value in found.items():
        np.testing.assert_allclose(value, run[name].values, rtol=1e-6, err_msg=name)


def test_what_is_left_is_smaller_and_can_be_trained(folder: Path):
    target = folder.with_name("made")
    layertap.export(folder, target, until="*hidden")
    module = tf.saved_model.load(str(target))
    assert [v.shape for v in module.weights.values()] == [(4, 5)]
    with tf.GradientTape() as tape:
        value = module.function(tf.constant(ROWS))
        loss = tf.reduce_sum(next(iter(value.values())))
    assert tape.gradient(loss, list(module.weights.values()))[0] is not None


def test_a_graph_with_a_session(tmp_path: Path):
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        w = tf.compat.v1.get_variable("w", [4, 3])
        tf.nn.softmax(tf.nn.relu(tf.matmul(x, w), name="hidden"), name="probs")
        with tf.compat.v1.Session(graph=graph) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            expected = session.run("hidden:0", {"x:0": ROWS})
            made = layertap.export(session, until="hidden")
    np.testing.assert_allclose(made(tf.constant(ROWS))["hidden"], expected, rtol=1e-6)


def test_what_cannot_be_an_output_is_said(folder: Path):
    with pytest.raises(PlanError, match="inside a loop"):
        layertap.export(folder, folder.with_name("made"), until="*inner")
    with pytest.raises(PlanError, match="is there already"):
        layertap.export(folder, folder.parent, until="*hidden")
    assert [path.name for path in folder.parent.iterdir()] == ["net"]
