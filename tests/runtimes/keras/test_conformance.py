"""Keras passes the conformance suite, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

from layertap.testing.runtime import Case, RuntimeSuite  # noqa: E402

L = keras.layers
BACKEND = keras.backend.backend()


def numpy(tensor: Any) -> Any:
    return np.array(keras.ops.convert_to_numpy(tensor))


def compiled(net: Any) -> Callable[[list[Any]], list[Any]]:
    """``net`` in inference mode, compiled as the backend's users do it; list in, list out."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec(t.shape, t.dtype) for t in net.inputs]
        function = tf.function(lambda *x: net(list(x), training=False), input_signature=signature)
        return lambda x: [value.numpy() for value in keras.tree.flatten(function(*x))]
    if BACKEND == "jax":
        import jax

        function = jax.jit(lambda t, n, x: net.stateless_call(t, n, x, training=False)[0])

        def run(x: list[Any]) -> list[Any]:
            variables = net.trainable_variables, net.non_trainable_variables
            values = function(*([v.value for v in vs] for vs in variables), x)
            return [np.array(value) for value in keras.tree.flatten(values)]

        return run
    import torch

    def eager(x: list[Any]) -> list[Any]:
        with torch.no_grad():
            return [v.numpy().copy() for v in keras.tree.flatten(net(x, training=False))]

    return eager


def make(net: Any, feed: Mapping[str, Any], outputs: list[str]) -> Case:
    """A case whose oracle is a second model, with each layer's output as an output."""
    taps: dict[str, Any] = {}
    calls: dict[str, int] = {}
    for _, nodes in sorted(net._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            name = node.operation.name
            number = calls[name] = calls.get(name, -1) + 1
            if not node.is_input:
                taps[f"{name}@{number}" if number else name] = node.outputs[0]
    values = keras.Model(net.inputs, list(taps.values()))([*feed.values()], training=False)
    run = compiled(net)
    return Case(
        source=net,
        feed=feed,
        oracle={name: numpy(value) for name, value in zip(taps, values, strict=True)},
        outputs=lambda: dict(zip(outputs, run([*feed.values()]), strict=True)),
        fingerprint=lambda: [numpy(v).tobytes() for v in net.variables],
    )


def normal(rng: Any, *shape: int) -> Any:
    return rng.normal(size=shape).astype(np.float32)


@st.composite
def networks(draw: st.DrawFn) -> Case:
    """Branching networks over vectors: dense layers, shared layers, sums, normalization."""
    keras.utils.clear_session()
    start = keras.initializers.GlorotUniform(seed=draw(st.integers(0, 99)))
    width = draw(st.integers(1, 5))
    tensors = [keras.Input((width,), name="x"), keras.Input((width,), name="y")]
    inputs, shared = list(tensors), L.Dense(width, kernel_initializer=start, name="shared")
    for i in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["dense", "shared", "add", "norm", "relu", "drop", "multiply"]))
        chosen = draw(st.lists(st.sampled_from(tensors), min_size=2, max_size=2))
        layer = {
            "dense": lambda i=i: L.Dense(
                width, activation="tanh", kernel_initializer=start, name=f"dense{i}"
            ),
            "shared": lambda: shared,
            "add": lambda i=i: L.Add(name=f"add{i}"),
            "norm": lambda i=i: L.BatchNormalization(name=f"norm{i}"),
            "relu": lambda i=i: L.ReLU(name=f"relu{i}"),
            "drop": lambda i=i: L.Dropout(0.5, seed=1, name=f"drop{i}"),
            "multiply": lambda i=i: L.Multiply(name=f"multiply{i}"),
        }[kind]()
        tensors.append(layer(chosen if kind in ("add", "multiply") else chosen[0]))
    last = L.Dense(2, kernel_initializer=start, name="last")(
        L.Concatenate(name="both")([*tensors[-2:], *inputs])
    )
    net = keras.Model(inputs, [last])
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    batch = draw(st.integers(1, 4))
    return make(net, {"x": normal(rng, batch, width), "y": normal(rng, batch, width)}, ["last"])


class TestKeras(RuntimeSuite):
    runtime = "keras"
    frameworks = ("keras", "tensorflow", "jax", BACKEND)  # Keras imports JAX where it finds it
    isolation = (
        "import layertap, keras, numpy\n"
        "net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])\n"
        "with layertap.open(net) as model:\n"
        "    assert len(model.capture(numpy.ones((2, 3), 'float32'))) == 1\n"
    )
    rtol, atol = 2e-5, 2e-6  # the oracle runs op by op
    examples = 8 if BACKEND == "tensorflow" else 3

    def make_case(self) -> Case:
        keras.utils.clear_session()
        keras.utils.set_random_seed(1)
        image = keras.Input((8, 8, 2), name="image")
        x = L.Conv2D(4, 3, padding="same", name="conv")(image)
        x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(x))
        x = L.Add(name="sum")([x, L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)])
        x = L.Dropout(0.3, name="drop")(L.MaxPooling2D(name="pool")(x))
        x = L.Flatten(name="flat")(x)
        dense = L.Dense(64, name="dense")
        x = L.Dense(3, activation="softmax", name="probabilities")(dense(dense(x)))
        net = keras.Model([image], [x])
        for variable in net.non_trainable_variables:
            variable.assign(variable + 0.25)
        return make(net, {"image": normal(np.random.default_rng(0), 3, 8, 8, 2)}, ["probabilities"])

    @pytest.mark.skipif(BACKEND == "jax", reason="XLA fuses this network differently with taps")
    def test_a_network_of_relus_is_the_same_bits_with_taps(self) -> None:
        case = self.make_case()
        with self.open(case) as model:
            everything = model.capture(case.feed)
            alone = model.capture(case.feed, taps="probabilities")
        expected = case.outputs()["probabilities"]
        for run in (everything, alone):
            np.testing.assert_array_equal(run["probabilities"].raw, expected)

    def random_cases(self) -> st.SearchStrategy[Case]:
        return networks()


DENSE = {
    "tensorflow": ("MatMul", "BiasAdd", "Tanh"),
    "jax": ("dot_general", "add", "tanh"),
    "torch": ("matmul", "add", "tanh"),
}[BACKEND]
ADD = {"tensorflow": "AddV2", "jax": "add", "torch": "add"}[BACKEND]


def dense_values(name: str, layer: Any, x: Any) -> dict[str, Any]:
    """Each operation of a dense layer on this backend, computed by NumPy."""
    kernel, bias = numpy(layer.kernel), numpy(layer.bias)
    results = (x @ kernel, x @ kernel + bias, np.tanh(x @ kernel + bias))
    values = {f"{name}/{op}": value for op, value in zip(DENSE, results, strict=True)}
    if BACKEND == "jax":
        values[f"{name}/broadcast_in_dim"] = bias[None]
    return {**values, name: results[-1]}


@st.composite
def chains(draw: st.DrawFn) -> Case:
    """Dense layers, some of them shared, and sums; the oracle has every operation."""
    keras.utils.clear_session()
    start = keras.initializers.GlorotUniform(seed=draw(st.integers(0, 99)))
    dense = [L.Dense(3, "tanh", kernel_initializer=start, name=f"d{i}") for i in range(3)]
    x = normal(np.random.default_rng(draw(st.integers(0, 99))), draw(st.integers(2, 4)), 3)
    inputs = tensor = keras.Input((3,), name="x")
    value, oracle, calls = x, {}, [0, 0, 0]
    for i, which in enumerate([*draw(st.lists(st.integers(0, 2), min_size=1, max_size=4)), 0]):
        name = f"d{which}@{calls[which]}" if calls[which] else f"d{which}"
        calls[which] += 1
        before, tensor = tensor, dense[which](tensor)
        oracle |= dense_values(name, dense[which], value)
        old, value = value, oracle[name]
        if draw(st.booleans()):
            tensor, value = L.Add(name=f"sum{i}")([before, tensor]), old + value
            oracle |= {f"sum{i}/{ADD}": value, f"sum{i}": value}
    net = keras.Model(inputs, tensor)
    run, last = compiled(net), list(oracle)[-1]
    return Case(
        source=net,
        feed={"x": x},
        oracle=oracle,
        outputs=lambda: {last: run([x])[0]},
        fingerprint=lambda: [numpy(v).tobytes() for v in net.variables],
        options={"depth": "ops"},
    )


class TestKerasOperations(TestKeras):
    """The same, at the depth of single operations."""

    examples = 6 if BACKEND == "tensorflow" else 3
    test_no_other_framework_is_imported = None  # type: ignore[assignment]  # as above

    def make_case(self) -> Case:
        return replace(super().make_case(), options={"depth": "ops"})

    def random_cases(self) -> st.SearchStrategy[Case]:
        return chains()
