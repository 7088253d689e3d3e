"""Layers run operation by operation: what plain Keras gives for them, bit for bit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

import layertap  # noqa: E402
from layertap.errors import SourceError, Untappable  # noqa: E402

pytestmark = pytest.mark.slow  # whole models
L = keras.layers


def numpy(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


def one_by_one(net, x):
    """The output of every layer of a Functional model, each called by itself."""
    found = {}

    def keep(operation):
        def call(*args, **kwargs):
            found[operation.name] = operation(*args, **kwargs)
            return found[operation.name]

        return call

    net._run_through_graph(keras.ops.convert_to_tensor(x), operation_fn=keep)
    return {name: numpy(value) for name, value in found.items()}


@pytest.mark.parametrize("name", ["resnet.h5", "ad01.h5"])
def test_shared_models_equal_plain_keras(shared: Path, name: str):
    path = shared / "models" / "mlperf-tiny" / name
    with layertap.open(path, eager=True) as model:
        shape = [2 if size is None else size for size in model.session.inputs[0].shape]
        x = np.random.default_rng(0).random(shape, dtype=np.float32)
        run = model.capture(x)
        assert run.provenance["compiled"] is False
        expected = one_by_one(model.session._model, x)
    assert len(run) > 10
    for tap in run:
        np.testing.assert_array_equal(run[tap].raw, expected[tap], err_msg=tap)


def test_states_and_batches():
    net = keras.Sequential([keras.Input((5, 3)), L.LSTM(4, name="lstm"), L.Dense(2)])
    x = np.random.default_rng(0).random((4, 5, 3), dtype=np.float32)
    with layertap.open(net, eager=True) as model:
        run = model.capture(x, taps="lstm | lstm:*", batch_size=2)
    np.testing.assert_array_equal(run["lstm"].raw, run["lstm:hidden"].raw)
    np.testing.assert_array_equal(run["lstm:cell_steps"].raw[:, -1], run["lstm:cell"].raw)
    np.testing.assert_allclose(run["lstm"].raw, numpy(net.layers[0](x)), rtol=1e-5)


def test_what_only_a_compiled_model_gives_is_said():
    net = keras.Sequential([keras.Input((5, 3)), L.LSTM(4, name="lstm")])
    with pytest.raises(SourceError, match="compiled model"):
        layertap.open(net, eager=True, depth="ops")
    if keras.backend.backend() == "tensorflow":
        with (
            layertap.open(net, eager=True) as model,
            pytest.raises(Untappable, match="in a loop|inside a loop"),
        ):
            model.capture(np.zeros((1, 5, 3), np.float32), taps="lstm/lstm_cell")
