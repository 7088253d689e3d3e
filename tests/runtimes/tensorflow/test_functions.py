"""Functions of this process, with signatures and without."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

import layertap  # noqa: E402
from layertap.errors import FeedError, SourceError  # noqa: E402

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def signed(*specs: Any) -> Any:
    return tf.function(input_signature=list(specs))


def test_a_function_without_signature_learns_from_an_example() -> None:
    function = tf.function(lambda x, y=2.0: tf.reduce_sum(x * y, 1, name="sums"))
    with layertap.open(function) as model:
        assert not model.graph.complete
        assert [(spec.name, spec.required) for spec in model.session.inputs] == [
            ("x", True),
            ("y", False),
        ]
        np.testing.assert_array_equal(model.capture({"x": ROWS}, "sums")["sums"].raw, [6, 24])
        both = model.capture({"x": ROWS.astype(np.float64), "y": 3.0}, "sums")
        np.testing.assert_array_equal(both["sums"].raw, [9, 36])
        assert both["sums"].raw.dtype == np.float64
        with pytest.raises(FeedError, match="does not take this input"):
            model.capture({"x": np.array([["a"]])})
        with pytest.raises(FeedError, match="NumPy cannot read"):
            model.capture({"x": [ROWS, ROWS[0]]})


def test_a_function_that_needs_the_size_of_the_batch() -> None:
    function = tf.function(lambda x: tf.stack([x[i] * i for i in range(x.shape[0])], name="rows"))
    with layertap.open(function) as model:
        run = model.capture(ROWS, "rows")
        # What it makes of a sample depends on the sample's place: one row per batch.
        np.testing.assert_array_equal(run["rows"].raw, [ROWS * [[0], [1]]])
        more = np.ones((3, 3), np.float32)
        assert model.capture(more, "rows")["rows"].raw[0, :, 0].tolist() == [0, 1, 2]
        assert model.capture(ROWS, "rows")["rows"].raw.shape == (1, 2, 3)
        both = model.capture([ROWS, more, ROWS], "rows")
        assert [row[:, 2].tolist() for row in both["rows"].raw] == [[0, 5], [0, 1, 2], [0, 5]]


def test_a_function_of_sequences_of_any_length() -> None:
    function = tf.function(lambda x: tf.add_n([x[:, i] for i in range(x.shape[1])], name="sum"))
    steps = tf.function(lambda x: tf.cumsum(x, 1, name="steps"))
    batches = [np.ones((2, length), np.float32) for length in (3, 1, 4, 3)]
    with layertap.open(function) as model:
        run = model.capture(batches)
        assert run["sum"].raw.tolist() == [3, 3, 1, 1, 4, 4, 3, 3]
        assert run["strided_slice_2"].samples.tolist() == [0, 1, 4, 5, 6, 7]
    with layertap.open(steps) as model:
        assert [len(row) for row in model.capture(batches, "steps")["steps"].raw[::2]] == [
            3,
            1,
            4,
            3,
        ]


def test_a_function_of_scalars_learns_from_an_example_too() -> None:
    with layertap.open(tf.function(lambda x: tf.multiply(x, 2, name="double"))) as model:
        assert model.capture({"x": np.float32(3)}, "double")["double"].raw.tolist() == [6]
        assert model.capture(np.float32([1, 2]), "double")["double"].raw.tolist() == [2, 4]


def test_a_function_of_any_number_of_inputs_takes_a_concrete_one() -> None:
    function = tf.function(lambda *xs: tf.add_n(list(xs), name="sum"))
    with pytest.raises(SourceError, match="how many inputs") as caught:
        layertap.open(function)
    assert "get_concrete_function" in caught.value.hint
    spec = tf.TensorSpec((None, 3), tf.float32)
    with layertap.open(function.get_concrete_function(spec, spec)) as model:
        np.testing.assert_array_equal(model.capture((ROWS, ROWS), "sum")["sum"].raw, ROWS * 2)


def test_outputs_under_numbers_are_not_mixed_up() -> None:
    @signed(tf.TensorSpec((None, 3), tf.float32))
    def function(x: Any) -> Any:
        return {number: x + float(number) for number in (2, 10, 9)}

    with layertap.open(function) as model:
        run = model.capture(ROWS * 0, "kind:output")
        assert {name: one.raw[0, 0] for name, one in run.items()} == {"2": 2, "9": 9, "10": 10}


def test_inputs_without_a_batch_axis_are_one_sample_each() -> None:
    @signed(tf.TensorSpec((3,), tf.float32), tf.TensorSpec((), tf.int32))
    def scaled(v: Any, n: Any) -> Any:
        return tf.multiply(v, tf.cast(n, tf.float32), name="product")

    with layertap.open(scaled) as model:
        one = model.capture({"v": ROWS[0], "n": np.int32(4)}, "product")
        np.testing.assert_array_equal(one["product"].raw, [ROWS[0] * 4])
        two = model.capture({"v": ROWS, "n": np.array([1, 2])}, "product")
        np.testing.assert_array_equal(two["product"].raw, ROWS * [[1], [2]])


def test_a_fixed_batch_is_run_as_often_as_needed() -> None:
    @signed(tf.TensorSpec((2, 3), tf.float32))
    def doubled(x: Any) -> Any:
        return tf.multiply(x, 2.0, name="product")

    x = np.arange(18, dtype=np.float32).reshape(6, 3)
    with layertap.open(doubled) as model:
        np.testing.assert_array_equal(model.capture(x, "product")["product"].raw, x * 2)


def test_a_function_without_inputs() -> None:
    function = signed()(lambda: tf.ones((2, 2), name="ones") * 3)
    with layertap.open(function) as model:
        assert model.capture({})["Identity"].raw.tolist() == [[[3.0, 3.0], [3.0, 3.0]]]


def test_a_dict_is_fed_by_its_keys() -> None:
    row = tf.TensorSpec((None, 3), tf.float32)

    @signed({"b": row, "a": row})
    def function(x: Any) -> Any:
        return tf.subtract(x["a"], x["b"], name="difference")

    with layertap.open(function) as model:
        run = model.capture({"b": ROWS * 0, "a": ROWS}, "difference")
        np.testing.assert_array_equal(run["difference"].raw, ROWS)


def test_texts_can_be_fed() -> None:
    function = signed(tf.TensorSpec((None,), tf.string))(lambda x: tf.strings.length(x))
    with layertap.open(function) as model:
        run = model.capture({"x": np.array(["a", "bcd"])}, "StringLength")
        np.testing.assert_array_equal(run["StringLength"].raw, [1, 3])
        (text,) = model.graph.inputs
        assert text.untappable == "its values are strings"


class Counter(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(5.0, name="calls")
        self.random = tf.random.Generator.from_seed(1)

    @signed(tf.TensorSpec((None, 3), tf.float32))
    def count(self, x: Any) -> Any:
        self.calls.assign_add(1.0)
        noise = self.random.normal((3,), name="noise")
        return tf.multiply(x, self.calls, name="product"), noise

    @tf.function
    def __call__(self, x: Any) -> Any:
        return tf.add(x, 1, name="sum")


def test_assigned_variables_start_anew_with_each_batch() -> None:
    counter = Counter()
    state = counter.random.state.numpy()
    with layertap.open(counter.count) as model:
        run = model.capture([ROWS, ROWS], "product | noise | Identity_1")
        np.testing.assert_array_equal(run["product"].raw, np.concatenate([ROWS, ROWS]) * 6)
        np.testing.assert_array_equal(run["Identity_1"].raw[0], run["Identity_1"].raw[1])
        assert model.read("calls") == 5
        counter.calls.assign(7.0)  # a live model: the next capture sees it
        np.testing.assert_array_equal(model.capture(ROWS, "product")["product"].raw, ROWS * 8)
    assert counter.calls.numpy() == 7
    np.testing.assert_array_equal(counter.random.state.numpy(), state)


def test_modules_and_loaded_models(tmp_path: Any) -> None:
    counter = Counter()
    with layertap.open(counter) as model:
        np.testing.assert_array_equal(model.capture(ROWS, "sum")["sum"].raw, ROWS + 1)
    with pytest.raises(SourceError, match="no tf.function"):
        layertap.open(tf.Module())
    tf.saved_model.save(counter, str(tmp_path), signatures={"count": counter.count})
    loaded = tf.saved_model.load(str(tmp_path))
    with layertap.open(loaded, signature="count") as model:
        run = model.capture(ROWS, "output_0")
        np.testing.assert_array_equal(run["output_0"].raw, ROWS * 6)
    with pytest.raises(SourceError, match="'serve'") as caught:
        layertap.open(loaded, signature="serve")
    assert "count" in caught.value.hint


def test_inside_a_graph_and_without_eager_execution() -> None:
    function = signed(tf.TensorSpec((None, 3), tf.float32))(lambda x: tf.add(x, 1, name="sum"))
    concrete = function.get_concrete_function()
    with tf.Graph().as_default(), layertap.open(concrete) as model:
        assert not tf.executing_eagerly()
        np.testing.assert_array_equal(model.capture(ROWS, "sum")["sum"].raw, ROWS + 1)


def test_calls_are_named_after_the_function() -> None:
    inner = tf.function(lambda x: tf.nn.relu(x, name="rectified"))

    @tf.function
    def _outer(x: Any) -> Any:
        return inner(inner(x)) * 2.0

    @signed(tf.TensorSpec((None, 3), tf.float32))
    def model_of(x: Any) -> Any:
        with tf.name_scope("block"):
            return _outer(x) + _outer(x + 1.0)

    with layertap.open(model_of) as model:
        names = [tap.name for tap in model.graph if tap.op == "Relu"]
    assert len(names) == 4
    assert names[0].startswith("block/outer/")
    assert names[2].startswith("block/outer_1/")
    assert all(name.endswith("/rectified") for name in names)


class Recording(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.ones((4, 2)))

    @tf.function
    def serve(self, x):
        return tf.matmul(layertap.record("doubled", x * 2), self.w)

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def loop(self, x):
        def body(i, y):
            return i + 1, layertap.record("inner", tf.tanh(y))

        y = tf.while_loop(lambda i, y: i < 3, body, (0, x), name="loop")[1]
        return tf.matmul(y, self.w)


def test_what_the_code_records_is_a_tap():
    """Also in a function that was called, and so traced, before; in a loop once an iteration."""
    net, x = Recording(), np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    net.serve(tf.constant(x))
    net.loop(tf.constant(x))
    with layertap.open(net.serve) as model:
        np.testing.assert_array_equal(model.capture(x, taps="doubled")["doubled"].values, x * 2)
    with layertap.open(net.loop) as model:
        inner = model.capture(x, taps="loop/body/inner")["loop/body/inner"].values
    steps = [x]
    for _ in range(3):
        steps.append(np.tanh(steps[-1]))
    np.testing.assert_allclose(inner, np.stack(steps[1:], axis=1), rtol=1e-6)
