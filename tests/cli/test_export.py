"""layertap export."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import parse


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tensors = [TensorSpec(name, (1, 4)) for name in ("x", "first", "second", "third")]
    steps = [OperatorSpec("RELU", [i], [i + 1]) for i in range(3)]
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(SubgraphSpec(tensors, [0], [3], steps)))
    return path


def outputs(path: Path) -> list[str]:
    graph = parse(path.read_bytes()).subgraphs[0]
    return [graph.tensors[i].name for i in graph.outputs]


def test_outputs_are_added(cli, model, tmp_path):
    made = tmp_path / "tapped.tflite"
    result = cli("export", model, "--add-outputs", "first", "-o", made)
    assert result.exit_code == 0
    assert f"{made.stat().st_size:,} bytes" in result.stdout
    assert outputs(made) == ["third", "first"]


def test_the_rest_is_cut_off(cli_json, model, tmp_path):
    made = tmp_path / "cut.tflite"
    document = cli_json("export", model, "--until", "op:RELU & s*", "-o", made)
    assert document == {"path": str(made), "bytes": made.stat().st_size}
    assert outputs(made) == ["second"]
    assert made.stat().st_size < model.stat().st_size


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either add_outputs or until"),
        (["--until", "first", "--add-outputs", "second"], "either add_outputs or until"),
        (["--until", "frist"], "first"),
    ],
)
def test_what_cannot_be_done_is_said(cli, model, tmp_path, arguments, said):
    made = tmp_path / "made.tflite"
    result = cli("export", model, *arguments, "-o", made)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not made.exists()


def test_the_model_itself_is_not_overwritten(cli, model):
    before = model.read_bytes()
    result = cli("export", model, "--until", "first", "-o", model)
    assert (result.exit_code, model.read_bytes()) == (2, before)
    assert "is the model itself" in result.stderr


def test_a_folder_that_does_not_exist(cli, model, tmp_path):
    result = cli("export", model, "--until", "first", "-o", tmp_path / "no" / "a.tflite")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


UNTRACED = """
import tensorflow as tf

@tf.function
def net(x):
    return tf.nn.relu(tf.add(x, 1.0, name="more"), name="positive")
"""


@pytest.mark.slow
def test_a_function_that_must_see_an_example_first(cli, cli_json, tmp_path, monkeypatch):
    tf = pytest.importorskip("tensorflow")
    (tmp_path / "untraced_net.py").write_text(UNTRACED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    refused = cli("export", "untraced_net:net", "--until", "more", "-o", "cut")
    assert refused.exit_code == 2
    assert "--input FILE or --random SEED" in refused.stderr
    np.save("x.npy", np.ones((2, 3), np.float32))
    document = cli_json("export", "untraced_net:net", "--until", "more", "-i", "x.npy", "-o", "cut")
    assert document["bytes"] > 0
    made = tf.saved_model.load("cut").signatures["serving_default"]
    np.testing.assert_array_equal(made(tf.constant(np.load("x.npy")))["more"], np.full((2, 3), 2.0))
