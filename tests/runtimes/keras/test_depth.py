"""Every operation inside the layers, values inside loops and branches, and recorded values.
Runs on each backend."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

import layertap  # noqa: E402
from layertap.core.graph import COMPUTED  # noqa: E402
from layertap.errors import NoSuchTap, SourceError, Untappable  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_names")]  # traces a model per test
L = keras.layers
ops = keras.ops
BACKEND = keras.backend.backend()
MATMUL = {"tensorflow": "MatMul", "jax": "dot_general", "torch": "matmul"}[BACKEND]
SIGMOID = {"tensorflow": "Sigmoid", "jax": "logistic", "torch": "sigmoid"}[BACKEND]
TANH = {"tensorflow": "Tanh", "jax": "tanh", "torch": "tanh"}[BACKEND]


def numpy(tensor: Any) -> Any:
    return np.array(keras.ops.convert_to_numpy(tensor))


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, numpy(expected), 2e-5, 2e-6)


class Gated(L.Layer):
    """Two operations and a layer of the user's; a value recorded in between."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inner = L.Dense(3, name="dense_1")

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        gate = layertap.record("gate", ops.sigmoid(x))  # the line of the sigmoid
        return self.inner(gate) + 1.0


def gated() -> tuple[Any, Any]:
    inputs, block = keras.Input((3,), name="x"), Gated(name="block")
    return keras.Model(inputs, L.ReLU(name="relu")(block(block(inputs)))), block


def test_each_operation_has_a_name_that_says_where_it_is() -> None:
    (net, block), x = gated(), normal(2, 3)
    with layertap.open(net, depth="ops") as model, layertap.open(net, depth="ops") as again:
        assert [tap.name for tap in model.graph] == [tap.name for tap in again.graph]
        run = model.capture(x)
        sigmoid = model.graph[f"block/{SIGMOID}"]
        assert (sigmoid.op, sigmoid.shape, sigmoid.operands) == (SIGMOID, (None, 3), ("x",))
        assert sigmoid.source.rpartition(":")[0].endswith("test_depth.py")
        product = model.graph[f"block/dense_1/{MATMUL}"]
        assert product.shape == (None, 3)
        assert product.operands == ((f"block/{SIGMOID}",) if BACKEND != "jax" else ("block/gate",))
        layers = [tap.name for tap in model.graph if tap.op in ("Gated", "Dense", "ReLU")]
        assert [name for name in layers if "/kernel" not in name and "/bias" not in name] == [
            "block/dense_1", "block", "block/dense_1@1", "block@1", "relu",
        ]  # fmt: skip
    close(run[f"block/{SIGMOID}"].raw, ops.sigmoid(x))
    close(run[f"block/dense_1/{MATMUL}"].raw, ops.sigmoid(x) @ block.inner.kernel)
    first = block(x)
    close(run["block"].raw, first)
    close(run[f"block@1/{SIGMOID}"].raw, ops.sigmoid(first))
    close(run[f"block/dense_1@1/{MATMUL}"].raw, ops.sigmoid(first) @ block.inner.kernel)


def test_single_operations_equal_all_at_once_at_any_batch_size() -> None:
    (net, _), x = gated(), normal(5, 3)
    with layertap.open(net, depth="ops") as model:
        taps = [tap.name for tap in model.graph if tap.kind in COMPUTED]
        run = model.capture(x, batch_size=2)  # the last batch is smaller
        for name in taps:
            if model.graph[name].per == "sample":
                alone = model.capture(x, name)
                np.testing.assert_allclose(alone[name].raw, run[name].raw, 1e-5, 1e-6, name)


def test_a_layer_called_like_an_operation_keeps_its_name() -> None:
    inputs = keras.Input((3,), name="x")
    outer = keras.Sequential([inputs, L.Dense(2, name=MATMUL), L.Dense(2, name="b")], name="outer")
    net = keras.Model(inputs, outer(inputs))
    with layertap.open(net, depth="ops") as model, layertap.open(net) as shallow:
        deep = {tap.name: tap for tap in model.graph}
        for tap in shallow.graph:
            assert (deep[tap.name].kind, deep[tap.name].op) == (tap.kind, tap.op)


class Subclassed(keras.Model):
    def call(self, x: Any) -> Any:
        return {"a": ops.tanh(x) * 2.0, "b": x}


def test_operations_of_the_model_itself() -> None:
    x = normal(2, 3)
    with layertap.open(Subclassed(), depth="ops") as model:
        run = model.capture(x)
        close(run[TANH].raw, np.tanh(x))
        close(run["output:a"].raw, np.tanh(x) * 2)
        assert {tap.name for tap in model.graph.outputs} == {"output:a", "output:b"}


def test_no_such_depth() -> None:
    with pytest.raises(SourceError, match="depth"):
        layertap.open(gated()[0], depth="everything")


class Looping(L.Layer):
    """A loop in which the user records, and a branch."""

    def call(self, x: Any) -> Any:
        def step(carry: Any, row: Any) -> Any:
            total = layertap.record("total", carry + ops.tanh(row))
            return total, total

        last, _ = ops.scan(step, ops.zeros_like(x[:, 0]), ops.transpose(x, (1, 0, 2)))
        return last


def test_one_value_per_iteration_of_a_loop() -> None:
    inputs = keras.Input((4, 3), name="x")
    net, x = keras.Model(inputs, Looping(name="loop")(inputs)), normal(2, 4, 3)
    totals = np.tanh(x).cumsum(1)
    with layertap.open(net, depth="ops") as model:
        run = model.capture(x)
        if BACKEND == "torch":  # a loop in Python: each iteration is a value of its own
            found = ["loop/total", *(f"loop/total.{i}" for i in (1, 2, 3))]
            close(np.stack([run[name].raw for name in found], axis=1), totals)
            return
        close(run["loop/total"].raw, totals)
        close(run[f"loop/{TANH}"].raw, np.tanh(x))
        assert model.graph["loop/total"].shape in [(4, None, 3), (None, None, 3)]
        assert model.graph["loop/total"].batch_axis == 1
    with layertap.open(net) as model:
        close(model.capture(x, "loop/total")["loop/total"].raw, totals)


class Nested(L.Layer):
    """A loop in a loop, with values that have no batch axis."""

    def call(self, x: Any) -> Any:
        def inner(i: Any, total: Any) -> Any:
            return layertap.record("inner", total + ops.cast(i, "float32"))

        def outer(i: Any, total: Any) -> Any:
            return ops.fori_loop(0, 3, inner, total)

        return x + ops.fori_loop(0, 2, outer, ops.zeros(()))


def test_loops_inside_of_loops() -> None:
    inputs = keras.Input((2,), name="x")
    net = keras.Model(inputs, Nested(name="nested")(inputs))
    with layertap.open(net) as model:
        run = model.capture(normal(3, 2))
    if BACKEND == "torch":
        assert [float(run[name].raw[0]) for name in run if "inner" in name] == [0, 1, 3, 3, 4, 6]
    else:
        np.testing.assert_array_equal(run["nested/inner"].raw, [[[0, 1, 3], [3, 4, 6]]])


class Branching(L.Layer):
    def call(self, x: Any) -> Any:
        def taken() -> Any:
            return layertap.record("doubled", x * 2.0)

        return ops.cond(ops.sum(x) > 0, taken, lambda: x)


def test_a_branch_says_why_it_cannot_be_read() -> None:
    inputs = keras.Input((2,), name="x")
    net = keras.Model(inputs, Branching(name="branch")(inputs))
    for depth in ("layers", "ops"):
        with layertap.open(net, depth=depth) as model:
            if BACKEND == "torch":
                model.trace(np.ones((2, 2), np.float32))
                continue
            assert "branch" in model.graph["branch/doubled"].untappable
            with pytest.raises(Untappable, match="conditional branch"):
                model.capture(np.ones((2, 2), np.float32), "branch/doubled")
            model.capture(np.ones((2, 2), np.float32))


class Waiting(L.Layer):
    """A loop whose length depends on values."""

    def call(self, x: Any) -> Any:
        def body(total: Any) -> Any:
            return (layertap.record("total", total * 2.0),)

        return ops.while_loop(lambda total: ops.sum(total) < 10, body, (x,))[0]


def test_a_loop_of_unknown_length() -> None:
    inputs = keras.Input((1,), name="x")
    net, x = keras.Model(inputs, Waiting(name="wait")(inputs)), np.ones((2, 1), np.float32)
    with layertap.open(net) as model:
        if BACKEND == "jax":
            with pytest.raises(Untappable, match="while loop"):
                model.capture(x, "wait/total")
        elif BACKEND == "tensorflow":
            run = model.capture(x, "wait/total")
            np.testing.assert_array_equal(run["wait/total"].raw[0], [[2], [4], [8]])


class Recording(L.Layer):
    """Records in a function that the user compiled, and used before."""

    def __init__(self, function: Any, **options: Any) -> None:
        super().__init__(**options)
        self.function = function

    def call(self, x: Any) -> Any:
        return layertap.record("all", {"h": self.function(x), "twice": (x, x + 1)})["h"]


class Forgetful(L.Layer):
    """What is computed is computed again for gradients, and not kept."""

    def call(self, x: Any) -> Any:
        return keras.remat(lambda y: layertap.record("inside", ops.tanh(y)) * 2.0)(x)


def test_record_where_values_are_not_kept_for_gradients() -> None:
    x = normal(2, 3)
    net = keras.Sequential([keras.Input((3,)), Forgetful(name="block")])
    with layertap.open(net) as model:
        close(model.capture(x, "block/inside")["block/inside"].raw, np.tanh(x))


def test_record_in_a_function_that_was_compiled_before() -> None:
    def step(x: Any) -> Any:
        return layertap.record("inside", x * 3.0) + 1.0

    if BACKEND == "tensorflow":
        import tensorflow as tf

        step = tf.function(step)
    if BACKEND == "jax":
        import jax

        step = jax.jit(step)
    x = normal(2, 3)
    step(ops.convert_to_tensor(x))
    inputs = keras.Input((3,), name="x")
    net = keras.Model(inputs, Recording(step, name="layer")(inputs))
    net(x)
    with layertap.open(net) as model:
        for _ in range(2):
            run = model.capture(x)
            close(run["layer/inside"].raw, x * 3)
            close(run["layer/all:h"].raw, x * 3 + 1)
            close(run["layer/all:twice.1"].raw, x + 1)


def test_record_does_nothing_by_itself_and_is_heard_when_attached_to() -> None:
    net, _ = gated()
    x = normal(2, 3)
    marker = object()
    assert layertap.record("anything", marker) is marker
    with layertap.attach(net, "*/gate | block") as taps:
        net(x)
        close(taps["block/gate"], ops.sigmoid(x))
    with layertap.open(net) as model:
        close(model.capture(x, "block/gate")["block/gate"].raw, ops.sigmoid(x))
        assert model.graph["block/gate"].op == "record"
        with pytest.raises(NoSuchTap):
            model.capture(x, "block/gates")


def test_recurrent_layers_at_the_depth_of_operations() -> None:
    inputs = keras.Input((4, 2), name="x")
    net = keras.Model(inputs, L.LSTM(3, name="lstm")(inputs))
    x = normal(2, 4, 2)
    with layertap.open(net, depth="ops") as model:
        run = model.capture(x)
        some = model.capture(x, [name for name in run if not name.endswith("_steps")])
        for name, capture in some.items():
            np.testing.assert_allclose(capture.raw, run[name].raw, 1e-5, 1e-6, err_msg=name)
    if BACKEND != "torch":
        tanhs = [name for name in run if name.startswith("lstm/lstm_cell/" + TANH)]
        assert [run[name].raw.shape for name in tanhs] == [(2, 4, 3)] * 2
        close(run[tanhs[1]].raw, np.tanh(run["lstm:cell_steps"].raw))


def test_a_last_batch_of_one_sample() -> None:
    inputs = keras.Input((4, 2), name="x")
    net = keras.Model(inputs, L.LSTM(3, name="lstm")(inputs))
    x = normal(3, 4, 2)
    with layertap.open(net, depth="ops") as model:
        run, whole = model.capture(x, batch_size=2), model.capture(x)
        one, two = model.capture(x[:1]), model.capture(x[:2])
    for name, capture in whole.items():
        if capture.tap.per == "sample":
            np.testing.assert_allclose(run[name].raw, capture.raw, 1e-5, 1e-6, err_msg=name)
        else:
            # The batch may be any axis: what one sample gives is the beginning of what two give.
            found, other = one[name].raw, two[name].raw
            part = other[tuple(slice(0, size) for size in found.shape)]
            np.testing.assert_allclose(found, part, 1e-5, 1e-6, err_msg=name)
            open_sizes = [
                s for s, k in zip(other.shape[1:], capture.tap.shape, strict=True) if not k
            ]
            assert (2 in open_sizes) == (found.shape != other.shape), name


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the name of the operation is TensorFlow's")
def test_a_name_that_only_operations_have_is_told() -> None:
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    with layertap.open(net) as model, pytest.raises(NoSuchTap, match="depth='ops'"):
        model.capture(np.zeros((2, 4), np.float32), "*softmax*")
