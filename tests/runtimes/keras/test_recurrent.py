"""States of recurrent layers, against the layer's own results and against its cell, step by step.
Runs on each backend."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

import layertap  # noqa: E402
from layertap.errors import NoSuchTap  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_names")]  # traces a model per test
L = keras.layers
BACKEND = keras.backend.backend()


def numpy(tensor: Any) -> Any:
    return np.array(keras.ops.convert_to_numpy(tensor))


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def padded(*shape: int) -> Any:
    """Random sequences with masked steps: at the start, in between, at the end, all of them."""
    x = normal(*shape)
    x[0, 0], x[1, 2], x[1, -1] = 0, 0, 0
    if len(x) > 2:
        x[2] = 0
    return x


def model_of(layer: Any, x: Any, masked: bool = False) -> Any:
    inputs = keras.Input(x.shape[1:], name="x")
    return keras.Model(inputs, layer(L.Masking()(inputs) if masked else inputs))


def compiled(function: Any, x: Any) -> list[Any]:
    """What ``function`` returns, compiled where the backend's users compile."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec((None, *x.shape[1:]), x.dtype)]
        function = tf.function(function, input_signature=signature)
    if BACKEND == "jax":
        import jax

        function = jax.jit(function)
    return [numpy(value) for value in keras.tree.flatten(function(x))]


def returned(layer: Any, x: Any, masked: bool = False) -> tuple[Any, list[Any]]:
    """The outputs of all steps and the last states that ``layer`` itself returns."""
    before = layer.return_sequences, layer.return_state
    layer.return_sequences = layer.return_state = True
    try:
        mask = np.any(x != 0, axis=-1) if masked else None
        sequence, *states = compiled(lambda x: layer(x, mask=mask), x)
    finally:
        layer.return_sequences, layer.return_state = before
    return sequence, states


def stepped(layer: Any, x: Any, mask: Any = None, initial: Any = None) -> list[Any]:
    """Every state after each step, (sample, step, ...), by calling the cell."""
    states = layer.get_initial_state(len(x)) if initial is None else initial
    order, cell = range(x.shape[1]), layer.cell
    if BACKEND == "jax":
        import jax

        cell = jax.jit(layer.cell)
    after: list[list[Any]] = []
    for t in reversed(order) if layer.go_backwards else order:
        _, new = cell(keras.ops.convert_to_tensor(x[:, t]), states)
        flat = [numpy(state) for state in keras.tree.flatten(new)]
        if mask is not None:
            old = [numpy(state) for state in keras.tree.flatten(states)]
            rows = mask[:, t]
            for one, previous in zip(flat, old, strict=True):
                one[~rows] = previous[~rows]
        after.append(flat)
        states = keras.tree.pack_sequence_as(states, list(map(keras.ops.convert_to_tensor, flat)))
    return [np.stack([flat[i] for flat in after], axis=1) for i in range(len(after[0]))]


def same(actual: Any, expected: Any, name: str) -> None:
    """The same bits; on JAX, where XLA rounds as it fuses, all but."""
    if BACKEND == "jax":
        np.testing.assert_allclose(actual, expected, 1e-6, 1e-6, err_msg=name)
    else:
        np.testing.assert_array_equal(actual, expected, err_msg=name)


def check(layer: Any, x: Any, names: list[str], masked: bool = False) -> None:
    """The taps of ``layer``, alone and together, equal what it returns, and its cell's steps."""
    net = model_of(layer, x, masked)
    steps = [f"{layer.name}:{name}_steps" for name in names]
    last = [f"{layer.name}:{name}" for name in names]
    with layertap.open(net) as model:
        run = model.capture(x, [*last, *steps, layer.name])
        if BACKEND != "jax":  # where each selection takes seconds to compile
            alone, bare = model.capture(x, steps[-1]), model.capture(x, layer.name)
            same(run[layer.name].raw, bare[layer.name].raw, layer.name)
            same(alone[steps[-1]].raw, run[steps[-1]].raw, steps[-1])
        assert {model.graph[name].kind for name in (*last, *steps)} == {"state"}
        assert model.graph[steps[0]].shape == (None, *run[steps[0]].raw.shape[1:])
    same(run[layer.name].raw, compiled(net, x)[0], layer.name)
    sequence, states = returned(layer, x, masked)
    for name, state in zip(last, states, strict=True):
        same(run[name].raw, state, name)
    mask = np.any(x != 0, axis=-1) if masked else None
    hidden = run[steps[-2] if names[-1].endswith("cell") else steps[-1]].raw
    if mask is None:
        same(hidden, sequence, layer.name)
    for name, expected in zip(steps, stepped(layer, x, mask), strict=True):
        np.testing.assert_allclose(run[name].raw, expected, 2e-5, 2e-6, err_msg=name)
    for name, step in zip(last, steps, strict=True):
        same(run[name].raw, run[step].raw[:, -1], name)


def test_lstm() -> None:
    check(L.LSTM(4, name="lstm"), normal(3, 5, 2), ["hidden", "cell"])


def test_masked_steps_keep_the_state() -> None:
    check(L.LSTM(4, name="lstm"), padded(3, 5, 2), ["hidden", "cell"], masked=True)


def test_gru_backwards() -> None:
    check(L.GRU(3, go_backwards=True, name="gru"), normal(2, 4, 2), ["hidden"])


def test_unrolled() -> None:
    check(L.LSTM(2, unroll=True, return_sequences=True), padded(2, 3, 2), ["hidden", "cell"], True)


def test_stacked_cells() -> None:
    cells = [L.LSTMCell(3), L.GRUCell(2), L.SimpleRNNCell(2), L.LSTMCell(2)]
    names = ["0.hidden", "0.cell", "1.hidden", "2.hidden", "3.hidden", "3.cell"]
    check(L.RNN(cells, name="rnn"), normal(2, 4, 2), names)


def test_convolutional() -> None:
    layer = L.ConvLSTM2D(2, 2, padding="same", name="conv")
    check(layer, normal(2, 3, 4, 4, 1), ["hidden", "cell"])


class Counting(L.Layer):
    """A cell of the user's own, with two states that nobody knows the names of."""

    state_size = (2, 1)

    def call(self, x: Any, states: Any) -> Any:
        total, steps = states
        return total + x, [total + x, steps + 1]


def test_a_cell_of_the_user_s_own() -> None:
    x = normal(2, 4, 2)
    net = model_of(L.RNN(Counting(), name="rnn"), x)
    with layertap.open(net) as model:
        run = model.capture(x, "rnn:*")
    assert set(run) == {f"rnn:state{i}{steps}" for i in (0, 1) for steps in ("", "_steps")}
    np.testing.assert_allclose(run["rnn:state0_steps"].raw, x.cumsum(1), 1e-5)
    np.testing.assert_array_equal(run["rnn:state1_steps"].raw[1, :, 0], [1, 2, 3, 4])


def test_bidirectional() -> None:
    layer, x = L.Bidirectional(L.LSTM(2, return_sequences=True), name="bi"), normal(2, 3, 2)
    net = model_of(layer, x)
    with layertap.open(net) as model:
        run = model.capture(x)
    for name, one in (("forward", layer.forward_layer), ("backward", layer.backward_layer)):
        sequence, (hidden, cell) = returned(one, x)
        same(run[f"bi:{name}.hidden"].raw, hidden, name)
        same(run[f"bi:{name}.cell"].raw, cell, name)
        same(run[f"bi:{name}.hidden_steps"].raw, sequence, name)
        np.testing.assert_allclose(run[f"bi:{name}.cell_steps"].raw, stepped(one, x)[1], 2e-5, 2e-6)


def test_time_distributed() -> None:
    lstm, x = L.LSTM(2), normal(2, 3, 4, 2)
    net = model_of(L.TimeDistributed(lstm, name="timed"), x)
    with layertap.open(net) as model:
        run = model.capture(x)
    assert run["timed:cell_steps"].raw.shape == (2, 3, 4, 2)
    for i in range(3):
        hidden, cell = stepped(lstm, x[:, i])
        np.testing.assert_allclose(run["timed:hidden_steps"].raw[:, i], hidden, 2e-5, 2e-6)
        np.testing.assert_allclose(run["timed:cell_steps"].raw[:, i], cell, 2e-5, 2e-6)
        np.testing.assert_allclose(run["timed:cell"].raw[:, i], cell[:, -1], 2e-5, 2e-6)


def test_initial_state_passed_by_the_caller() -> None:
    x, h, c = padded(2, 4, 2), normal(2, 3), normal(2, 3) + 1
    inputs = [
        keras.Input((4, 2), name="x"),
        keras.Input((3,), name="h"),
        keras.Input((3,), name="c"),
    ]
    lstm = L.LSTM(3, name="lstm")
    mask = keras.ops.any(keras.ops.not_equal(inputs[0], 0), axis=-1)
    net = keras.Model(inputs, lstm(inputs[0], mask=mask, initial_state=inputs[1:]))
    with layertap.open(net) as model:
        run = model.capture({"x": x, "h": h, "c": c}, "lstm:*_steps")
    initial = [keras.ops.convert_to_tensor(state) for state in (h, c)]
    hidden, cell = stepped(lstm, x, np.any(x != 0, axis=-1), initial)
    np.testing.assert_allclose(run["lstm:hidden_steps"].raw, hidden, 2e-5, 2e-6)
    np.testing.assert_allclose(run["lstm:cell_steps"].raw, cell, 2e-5, 2e-6)
    np.testing.assert_array_equal(run["lstm:cell_steps"].raw[0, 0], c[0])  # masked: as it began


def test_stateful_layers_start_from_the_model_s_state_and_keep_it() -> None:
    inputs = keras.Input(batch_shape=(2, 3, 2))
    lstm = L.LSTM(2, stateful=True, name="lstm")
    net, x = keras.Model(inputs, lstm(inputs)), normal(2, 3, 2)
    net(x)
    before = [numpy(state) for state in lstm.states]
    with layertap.open(net) as model:
        run = model.capture(x, "lstm:*")
    initial = [keras.ops.convert_to_tensor(state) for state in before]
    hidden, cell = stepped(lstm, x, initial=initial)
    # What a sample gives depends on the state at its place of the batch: nothing proves more.
    np.testing.assert_allclose(run["lstm:hidden_steps"].raw[0], hidden, 2e-5, 2e-6)
    np.testing.assert_allclose(run["lstm:cell_steps"].raw[0], cell, 2e-5, 2e-6)
    for state, expected in zip(lstm.states, before, strict=True):
        np.testing.assert_array_equal(numpy(state), expected)


def test_a_single_layer_and_one_of_unknown_length() -> None:
    x = normal(2, 4, 3)
    with layertap.open(L.GRU(2)) as model:
        run = model.capture(x)
        np.testing.assert_array_equal(run["output:hidden_steps"].raw[:, -1], run["output"].raw)
    inputs = keras.Input((None, 3), name="x")
    with layertap.open(keras.Model(inputs, L.LSTM(2, name="lstm")(inputs))) as model:
        for length in (4, 6):
            run = model.capture(normal(2, length, 3), "lstm:cell | lstm:cell_steps")
            steps = run["lstm:cell_steps"].raw
            assert steps.shape == (2, length, 2)
            np.testing.assert_array_equal(steps[:, -1], run["lstm:cell"].raw)


def test_attached_to() -> None:
    lstm, x = L.LSTM(3, name="lstm"), normal(2, 4, 2)
    net = model_of(lstm, x)
    call, inner = keras.layers.RNN.call, keras.src.backend.rnn
    with layertap.attach(net, "lstm:*") as taps:
        net(x)
        assert {"lstm:hidden", "lstm:cell", "lstm:cell_steps", "lstm:hidden_steps"} <= set(taps)
        np.testing.assert_allclose(taps["lstm:cell_steps"], stepped(lstm, x)[1], 2e-5, 2e-6)
    assert (keras.layers.RNN.call, keras.src.backend.rnn) == (call, inner)
    assert "inner_loop" not in vars(lstm)


def test_no_such_state() -> None:
    net = model_of(L.GRU(2, name="gru"), normal(2, 3, 2))
    with layertap.open(net) as model, pytest.raises(NoSuchTap, match="gru:cell"):
        model.capture(normal(2, 3, 2), "gru:cell")


def test_layers_inside_the_loop_have_one_value_per_iteration() -> None:
    if BACKEND == "torch":
        pytest.skip("PyTorch's loops are Python's: each call is a tap of its own")
    layer, x = L.RNN(L.GRUCell(3, name="cell"), name="rnn"), normal(2, 5, 2)
    with layertap.open(model_of(layer, x)) as model:
        run = model.capture(x)
    np.testing.assert_array_equal(run["rnn/cell"].raw, run["rnn:hidden_steps"].raw)


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    """What a layer is made of."""
    masked, unrolled = draw(st.booleans()), draw(st.booleans())
    backwards = draw(st.booleans()) and not (masked and unrolled)  # a fault of Keras's on PyTorch
    return {
        "cells": draw(st.lists(st.sampled_from([L.LSTMCell, L.GRUCell]), max_size=3)),
        "kind": draw(st.sampled_from([L.LSTM, L.GRU, L.SimpleRNN])),
        "units": draw(st.integers(1, 4)),
        "masked": masked,
        "options": {
            "unroll": unrolled,
            "go_backwards": backwards,
            "return_sequences": draw(st.booleans()),
            "return_state": draw(st.booleans()),
        },
    }


@pytest.mark.slow
@settings(
    max_examples=6 if BACKEND == "tensorflow" else 2,
    suppress_health_check=list(HealthCheck),
)
@given(layers(), st.integers(2, 4), st.integers(4, 6))
def test_any_recurrent_layer(made: dict[str, Any], batch: int, length: int) -> None:
    cells, kind, units = made["cells"], made["kind"], made["units"]
    if len(cells) > 1:
        layer = L.RNN([cell(units) for cell in cells], **made["options"])
        each = (["hidden", "cell"][: 1 + (cell is L.LSTMCell)] for cell in cells)
        names = [f"{i}.{name}" for i, own in enumerate(each) for name in own]
    else:
        layer = kind(units, **made["options"])
        names = ["hidden", "cell"][: 1 + (kind is L.LSTM)]
    masked = made["masked"]
    check(layer, (padded if masked else normal)(batch, length, 2), names, masked)


def test_a_number_of_calls_that_depends_on_the_input_takes_an_example() -> None:
    lstm = L.LSTM(2)
    inputs = keras.Input((None, 3, 2), name="x")
    net = keras.Model(inputs, L.TimeDistributed(lstm, name="timed")(inputs))
    with layertap.open(net) as model:
        assert not model.graph.complete
        for length in (2, 4):
            x = normal(2, length, 3, 2)
            run = model.capture(x)
            assert run["timed:cell"].raw.shape == (2, length, 2)
            np.testing.assert_allclose(run["timed"].raw, numpy(net(x)), 2e-5, 2e-6)
