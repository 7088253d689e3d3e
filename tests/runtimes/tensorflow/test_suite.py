"""TensorFlow passes the conformance suite, from every kind of source."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

from layertap.core.dtypes import Array  # noqa: E402
from layertap.testing.runtime import Case, RuntimeSuite  # noqa: E402

v1 = tf.compat.v1


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Net(tf.Module):
    """A convolution, a function that is called twice, and a counter that each call advances."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(normal(1, 3, 3, 2, 4) / 4, name="kernel")
        self.dense = tf.Variable(normal(2, 64, 64) / 8, name="dense")
        self.calls = tf.Variable(0.0, name="calls")
        self.half = tf.function(self._half)

    def _half(self, x: Any) -> Any:
        return tf.nn.relu(tf.matmul(x, self.dense, name="product"), name="rectified")

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 2), tf.float32, name="image")])
    def serve(self, image: Any) -> Any:
        x = tf.nn.conv2d(image, self.kernel, 2, "SAME", name="conv")
        x = self.half(self.half(tf.reshape(x, (-1, 64), name="flat")))
        return {"probabilities": tf.nn.softmax(x, name="softmax")}

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="row")])
    def count(self, row: Any) -> Any:
        self.calls.assign_add(1.0)
        return {"scaled": tf.multiply(row, self.calls, name="product")}

    def values(self, image: Array) -> dict[str, Array]:
        """What ``serve`` computes, one operation at a time."""
        found: dict[str, Any] = {"conv": tf.nn.conv2d(image, self.kernel, 2, "SAME")}
        x = found["flat"] = tf.reshape(found["conv"], (-1, 64))
        for call in ("half", "half_1"):
            found[f"{call}/product"] = tf.matmul(x, self.dense)
            x = found[f"{call}/rectified"] = tf.nn.relu(found[f"{call}/product"])
        found["softmax"] = found["probabilities"] = tf.nn.softmax(x)
        return {name: value.numpy() for name, value in found.items()}

    def state(self) -> object:
        return [variable.numpy().tobytes() for variable in self.variables]


def classic(build: Callable[[], Any]) -> tuple[Any, Any]:
    """A graph that ``build`` adds to, and a session with its variables initialized."""
    graph = tf.Graph()
    with graph.as_default():
        v1.set_random_seed(3)
        build()
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    return graph, session


def perceptron() -> None:
    """Placeholders, variables of both kinds, and operations that users write."""
    x = v1.placeholder(tf.float32, (None, 6), name="x")
    keep = v1.placeholder_with_default(np.float32(0.5), (), name="keep")
    for i, resource in enumerate((False, True)):
        with v1.variable_scope(f"layer{i}"):
            w = v1.get_variable("w", (6, 6), use_resource=resource)
            x = tf.nn.relu(tf.matmul(x, w, name=f"product{i}") * keep, name=f"hidden{i}")
    a, b = tf.split(x, 2, axis=1, name="split")
    tf.concat([b, a], 1, name="y")


def fetched(session: Any, feed: Mapping[str, Array], names: Mapping[str, str]) -> dict[str, Array]:
    """Tensors by tap name, all in one run of the session."""
    fed = {f"{name}:0": value for name, value in feed.items()}
    return dict(zip(names, session.run(list(names.values()), fed), strict=True))


def every_tensor(graph: Any, feed: Mapping[str, Array]) -> dict[str, str]:
    """Names of the tensors that depend on what is fed, by tap name."""
    reached = set(feed)
    found = {}
    for operation in graph.get_operations():
        if any(tensor.op.name in reached for tensor in operation.inputs):
            reached.add(operation.name)
            for tensor in operation.outputs:
                found[tensor.name.removesuffix(":0")] = tensor.name
    return found


def session_case(graph: Any, session: Any, feed: Mapping[str, Array], output: str) -> Case:
    """A case whose oracle is the session itself."""

    def state() -> object:
        with graph.as_default():
            values = session.run(list(v1.global_variables()))
        return [value.tobytes() for value in values], len(graph.get_operations())

    return Case(
        session,
        feed,
        fetched(session, feed, every_tensor(graph, feed)),
        lambda: fetched(session, feed, {output: f"{output}:0"}),
        state,
    )


_KEPT = tempfile.TemporaryDirectory(prefix="layertap-tests-")


@cache
def folder() -> Path:
    """A SavedModel and a frozen graph, written once."""
    path = Path(_KEPT.name)
    net = Net()
    signatures = {"serve": net.serve, "count": net.count}
    tf.saved_model.save(net, str(path / "saved"), signatures=signatures)
    graph, session = classic(perceptron)
    small = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["y"])
    (path / "frozen.pb").write_bytes(small.SerializeToString())
    return path


@st.composite
def graphs(draw: st.DrawFn) -> Case:
    """Random graphs over matrices, some operations with two results; the session is the oracle."""
    width = draw(st.integers(1, 4)) * 2
    graph = tf.Graph()
    with graph.as_default():
        tensors = [v1.placeholder(tf.float32, (None, width), name=name) for name in ("a", "b")]
        for i in range(draw(st.integers(1, 7))):
            kind = draw(st.sampled_from(["add", "dense", "split", "norm", "tanh", "pick", "sum"]))
            x, y = (draw(st.sampled_from(tensors)) for _ in range(2))
            if kind == "add":
                tensors.append(tf.add(x, y, name=f"add{i}"))
            elif kind == "dense":
                tensors.append(tf.matmul(x, normal(i, width, width), name=f"dense{i}"))
            elif kind == "split":
                parts = tf.split(x, 2, axis=1, name=f"split{i}")
                tensors.append(tf.concat(parts[::-1], 1, name=f"swapped{i}"))
            elif kind == "norm":
                tensors.append(tf.subtract(x, tf.reduce_mean(x, 0), name=f"norm{i}"))
            elif kind == "tanh":
                tensors.append(tf.tanh(x, name=f"tanh{i}"))
            elif kind == "pick":
                tensors.append(tf.where(x > y, x, y, name=f"pick{i}"))
            else:
                tensors.append(x + tf.reduce_sum(y, 1, keepdims=True, name=f"sum{i}"))
        tf.add_n([*tensors, tensors[0] * tensors[1]], name="last")
    rows = draw(st.integers(2, 4))
    feed = {name: normal(draw(st.integers(0, 99)), rows, width) for name in ("a", "b")}
    return session_case(graph, v1.Session(graph=graph), feed, "last")


class TensorFlowSuite(RuntimeSuite):
    runtime = "tensorflow"
    frameworks = ("tensorflow", "keras", "jax")  # TensorFlow imports Keras, Keras imports JAX
    isolation = "pass"  # tried where a function is opened
    rtol, atol = 2e-5, 2e-6  # the oracles run op by op, or with other operations fused
    examples = 1  # tried where a session is opened

    def random_cases(self) -> st.SearchStrategy[Case]:
        return graphs()


class TestConcreteFunction(TensorFlowSuite):
    isolation = """
import layertap, numpy, tensorflow
f = tensorflow.function(lambda x: x * 2)
with layertap.open(f) as model:
    model.capture({"x": numpy.ones((2, 3), "float32")})
"""

    def make_case(self) -> Case:
        net = Net()
        feed = {"image": normal(0, 3, 8, 8, 2)}
        return Case(
            net.serve.get_concrete_function(),
            feed,
            net.values(feed["image"]),
            lambda: {k: v.numpy() for k, v in net.serve(tf.constant(feed["image"])).items()},
            net.state,
        )


class TestSavedModel(TensorFlowSuite):
    def make_case(self) -> Case:
        path = folder() / "saved"
        feed = {"image": normal(0, 3, 8, 8, 2)}
        serve = tf.saved_model.load(str(path)).signatures["serve"]
        return Case(
            path,
            feed,
            Net().values(feed["image"]),
            lambda: {k: v.numpy() for k, v in serve(tf.constant(feed["image"])).items()},
            lambda: sorted(
                (p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in path.rglob("*")
            ),
            {"signature": "serve"},
        )


class TestFrozenGraph(TensorFlowSuite):
    def make_case(self) -> Case:
        path = folder() / "frozen.pb"
        graph = tf.Graph()
        with graph.as_default():
            definition = v1.GraphDef.FromString(path.read_bytes())
            tf.graph_util.import_graph_def(definition, name="")
        feed = {"x": normal(0, 4, 6), "keep": np.array(0.25, np.float32)}
        session = v1.Session(graph=graph)
        case = session_case(graph, session, feed, "y")
        return Case(path, feed, case.oracle, case.outputs, lambda: path.read_bytes())


class TestLiveSession(TensorFlowSuite):
    examples = 15

    def make_case(self) -> Case:
        graph, session = classic(perceptron)
        feed = {"x": normal(0, 4, 6), "keep": np.array(0.25, np.float32)}
        return session_case(graph, session, feed, "y")


class Looping(tf.Module):
    """A loop with a branch inside, and a loop over the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(normal(5, 4, 4) / 2, name="w")

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def run(self, x: Any) -> Any:
        def body(i: Any, h: Any) -> Any:
            h = tf.tanh(tf.matmul(h, self.w, name="product"), name="squashed")
            even = tf.equal(i % 2, 0, name="even")
            bigger = lambda: tf.multiply(h, 2.0, name="doubled")  # noqa: E731
            return i + 1, tf.cond(even, bigger, lambda: tf.negative(h, name="negated"), name="side")

        _, h = tf.while_loop(lambda i, _: i < 3, body, (0, x), name="steps")
        sums = tf.map_fn(lambda row: tf.reduce_sum(row, name="sum"), h, name="each")
        return tf.add(h, 1.0, name="result"), sums

    def values(self, x: Array) -> dict[str, Array]:
        """By tap name, with NumPy."""
        w, h = self.w.numpy(), x
        found: dict[str, list[Array]] = {
            name: [] for name in ("product", "squashed", "even", "doubled", "negated")
        }
        for i in range(3):
            found["product"].append(h @ w)
            found["squashed"].append(np.tanh(found["product"][-1]))
            found["even"].append(np.array(i % 2 == 0))
            h = found["squashed"][-1] * (2 if i % 2 == 0 else -1)
            found["doubled" if i % 2 == 0 else "negated"].append(h)
        stacked = {name: np.stack(each) for name, each in found.items()}
        return {
            "steps/body/product": stacked["product"],
            "steps/body/squashed": stacked["squashed"],
            "steps/body/even": stacked["even"],
            "steps/body/side/then/doubled": stacked["doubled"],
            "steps/body/side/else/negated": stacked["negated"],
            "each/while/body/sum": h.sum(1),
            "result": h + 1,
        }


class TestLoops(TensorFlowSuite):
    rtol, atol = 2e-4, 2e-5

    def make_case(self) -> Case:
        net = Looping()
        x = normal(0, 3, 4)

        def outputs() -> dict[str, Array]:
            result, sums = net.run(tf.constant(x))
            return {"Identity": result.numpy(), "Identity_1": sums.numpy()}

        state = lambda: net.w.numpy().tobytes()  # noqa: E731
        return Case(net.run.get_concrete_function(), {"x": x}, net.values(x), outputs, state)

    def test_plan_knows_the_exact_bytes(self, case: Case) -> None:
        """Outside of branches, and of loops over samples."""
        taps = "~steps/body/side/* & ~each/while/*"
        with self.open(case) as model:
            plan = model.plan(taps, case.feed)
            run = model.capture(case.feed, taps)
            assert "steps/body/product" in run
            assert plan.total_bytes == sum(np.asarray(c.raw).nbytes for c in run.values())


del TensorFlowSuite, RuntimeSuite  # bases, not tests
