from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.core.feeds import InputSpec, count_samples, make_feeds, slice_feed
from layertap.errors import FeedError

ONE = (InputSpec("x", "float32", (None, 3)),)
TWO = (InputSpec("a", "float32", (None, 2)), InputSpec("b", "int8", (None,)))


def feeds(x: Any, inputs: Any = ONE, **options: Any) -> list[tuple[dict[str, Any], int]]:
    return [(dict(feed), samples) for feed, samples in make_feeds(x, inputs, **options)]


def test_an_array_is_one_batch() -> None:
    x = np.ones((5, 3), np.float32)
    ((feed, samples),) = feeds(x)
    assert samples == 5
    assert feed["x"] is x


@given(st.integers(1, 20), st.integers(1, 7))
def test_cut_into_batches(samples: int, size: int) -> None:
    x = np.arange(samples * 3, dtype=np.float32).reshape(samples, 3)
    made = make_feeds(x, ONE, batch_size=size)
    parts = list(made)
    assert [n for _, n in parts] == [len(feed["x"]) for feed, _ in parts]
    assert (made.samples, made.batches) == (samples, len(parts))
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed, _ in parts]), x)


def test_iterables_of_batches() -> None:
    x, labels = np.ones((2, 3), np.float32), np.zeros(2)
    assert [n for _, n in feeds([x, x])] == [2, 2]
    assert [n for _, n in feeds(iter([x]))] == [2]
    assert [n for _, n in feeds([{"x": x}, (x,), [x, labels], (x, labels)])] == [2] * 4
    assert make_feeds([x, x], ONE).batches == 2
    assert make_feeds(iter([x, x]), ONE).batches is None


def test_nested_lists_of_numbers_are_an_array() -> None:
    ((feed, samples),) = feeds([[1, 2, 3], [4, 5, 6]])
    assert samples == 2
    assert feed["x"].dtype == np.float32


class Table:
    """What a data frame of pandas or polars is to us."""

    columns = ("a", "b", "c")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def to_numpy(self) -> Any:
        return np.ones((4, 3))


def test_a_table_is_an_array_of_its_rows() -> None:
    for x in (Table(), [Table()]):
        ((feed, samples),) = feeds(x)
        assert (feed["x"].shape, samples) == ((4, 3), 4)


def test_several_inputs() -> None:
    a, b = np.ones((4, 2), np.float32), np.ones(4, np.int8)
    for x in ((a, b), [a, b], {"a": a, "b": b}, {"b": b, "a": a}):
        ((feed, samples),) = feeds(x, TWO)
        assert samples == 4
        assert feed["b"] is b


def test_what_loaders_yield_beside_several_inputs() -> None:
    a, b, labels = np.ones((4, 2), np.float32), np.ones(4, np.int8), np.zeros(4)
    for inputs in ((a, b), [a, b], {"a": a, "b": b}):
        for batch in ((inputs, labels), (inputs, labels, labels), [inputs, labels]):
            ((feed, samples),) = feeds([batch], TWO)
            assert samples == 4
            assert feed["a"] is a
            assert list(feed) == ["a", "b"]
    with pytest.raises(FeedError, match="'a' is a dict"):
        feeds([({"a": a, "more": b}, labels)], TWO)


def test_one_input_of_several_arrays() -> None:
    a, b, labels = np.ones((4, 2)), np.ones((4, 3)), np.zeros(4)
    spec = (InputSpec("x", nested="tuple"),)
    for x in ((a, b), {"x": (a, b)}, [((a, b), labels)]):
        ((feed, samples),) = feeds(x, spec)
        assert samples == 4
        assert feed["x"] == (a, b)
    for x in ({"x": {"p": a, "q": (b, None)}}, [({"p": a, "q": (b, None)}, labels)]):
        first, second = feeds(x, spec, batch_size=3)
        assert (first[1], second[1]) == (3, 1)
        assert second[0]["x"]["q"][0].shape == (1, 3)
    for value in ([a, b], (a, b)):
        ((feed, samples),) = feeds({"x": value}, (InputSpec("x", nested="list"),))
        assert samples == 4
        assert feed["x"] == (a, b)


def test_the_first_of_several_inputs_may_be_a_pair() -> None:
    a, b, c = np.ones((4, 2)), np.ones((4, 3)), np.zeros(4)
    spec = (InputSpec("pair", nested="tuple"), InputSpec("other", nested="tuple"))
    ((feed, _),) = feeds([((a, b), c)], spec)
    assert feed["pair"] == (a, b)
    assert feed["other"] is c


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (np.ones((5, 4), np.float32), "shape 5x4, expected \\?x3"),
        (np.ones(3, np.float32), r"x\[None\]"),
        (np.ones((1, 3), complex), "complex128"),
        ({"y": np.ones((1, 3))}, "no input 'y'"),
        ({}, "'x' is missing"),
        ((np.ones((1, 3)), np.ones((1, 3))), "2 arrays"),
        (object(), "not an array"),
        ({"x": [[1, 2], [3]]}, "cannot read"),
        (None, "not an array"),
        ("text", "a str, not an array"),
        (np.ma.masked_less(np.array([[-1.0, 2, 3]]), 0), "'x' masks 1 of its values"),
    ],
)
def test_bad_feeds(x: Any, what: str) -> None:
    with pytest.raises(FeedError, match=what) as caught:
        feeds(x)
    assert caught.value.hint


def test_inputs_of_different_lengths() -> None:
    with pytest.raises(FeedError, match="4 samples.*3"):
        feeds((np.ones((4, 2), np.float32), np.ones(3, np.int8)), TWO)


def test_without_a_batch_axis() -> None:
    spec = (InputSpec("x", "float32", (3,)),)
    ((feed, samples),) = feeds(np.ones(3, np.float32), spec, batched=False)
    assert (feed["x"].shape, samples) == ((1, 3), 1)
    ((feed, samples),) = feeds(np.ones((4, 3), np.float32), spec, batched=False)
    assert (feed["x"].shape, samples) == ((4, 3), 4)


def test_labels_are_no_value_for_an_optional_input() -> None:
    spec = (InputSpec("x"), InputSpec("mask", required=False), InputSpec("*args"))
    a, labels = np.ones((2, 1)), np.zeros(2)
    assert [list(feed) for feed, _ in feeds([(a, labels)], spec)] == [["x"]]
    assert [list(feed) for feed, _ in feeds((a, labels), spec)] == [["x", "mask"]]
    assert [list(feed) for feed, _ in feeds([{"x": a, "mask": a}], spec)] == [["x", "mask"]]


def test_open_ended_inputs() -> None:
    spec = (InputSpec("x"), InputSpec("*args"), InputSpec("**kwargs"))
    a = np.ones((2, 1))
    ((feed, _),) = feeds((a, a, a), spec)
    assert list(feed) == ["x", "args.0", "args.1"]
    ((feed, _),) = feeds({"x": a, "mask": None}, spec)
    assert feed["mask"] is None


def test_a_list_of_arrays_is_a_value_that_the_model_may_take() -> None:
    spec, a = (InputSpec("images"),), np.ones((2, 3))
    for value in ([a, a], [a, a[:1]], [a, {"mask": a}]):
        ((feed, _),) = feeds({"images": value}, spec)
        assert feed["images"] is value
    ((feed, _),) = feeds({"images": [[1, 2], [3, 4]]}, spec)
    assert feed["images"].shape == (2, 2)
    with pytest.raises(FeedError, match="'x' is a dict that NumPy cannot read"):
        feeds({"x": {"a": a}})
    with pytest.raises(FeedError, match="'images' is a list that NumPy cannot read"):
        feeds({"images": [[1, 2], [3]]}, spec)


@pytest.mark.parametrize("value", [3, 0.5, True, None, "mean"])
def test_what_is_no_array_is_passed_on_as_it_is(value: Any) -> None:
    spec, x = (InputSpec("x"), InputSpec("option", required=False)), np.ones((2, 1))
    ((feed, samples),) = feeds({"x": x, "option": value}, spec)
    assert feed["option"] is value
    assert samples == 2


def test_what_a_model_takes_is_said_in_words() -> None:
    spec, a = (InputSpec("x"), InputSpec("**")), np.ones((2, 1))
    with pytest.raises(FeedError) as caught:
        feeds((a, a), spec)
    assert caught.value.hint == "the model takes x, others by name"


def test_a_list_that_holds_itself_is_no_input() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(FeedError, match="'x' is a list that NumPy cannot read"):
        feeds(endless)


def test_masked_values_are_refused_wherever_they_are() -> None:
    masked = np.ma.masked_less(np.array([[-1.0, 2], [3, -4]]), 0)
    spec = (InputSpec("x", nested="tuple"), InputSpec("y", required=False))
    for x in (masked, {"x": (masked, None)}, {"x": {"p": masked}}, [(masked, 0)]):
        with pytest.raises(FeedError, match="'x' masks 2 of its values") as caught:
            feeds(x, spec)
        assert "x.filled(" in caught.value.hint
    with pytest.raises(FeedError, match="'x' masks"):
        feeds({"x": [masked, masked]}, (InputSpec("x", nested="list"),))
    clear = np.ma.masked_array(np.ones((2, 3)), mask=False)
    ((feed, _),) = feeds(clear)
    assert feed["x"].tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize("size", [0, -1, 1.5, "4", [2]])
def test_what_is_no_batch_size(size: Any) -> None:
    for x in (np.ones((4, 3)), [np.ones((4, 3))]):
        with pytest.raises(FeedError, match="a batch size of") as caught:
            feeds(x, batch_size=size)
        assert caught.value.hint == "give a whole number from 1"


def test_a_batch_size_may_be_an_integer_of_numpy() -> None:
    assert [samples for _, samples in feeds(np.ones((5, 3)), batch_size=np.int64(2))] == [2, 2, 1]


def test_only_the_batch_at_hand_is_converted() -> None:
    x = np.zeros((64, 1 << 14), np.uint8)
    tracemalloc.start()
    for feed, _ in make_feeds(x, (InputSpec("x", "float32", (None, 1 << 14)),), batch_size=2):
        assert feed["x"].dtype == np.float32
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * 4 * x[:2].size  # a few batches as float32; the whole is 64 samples


def test_the_time_of_a_sequence_first_input_is_not_cut() -> None:
    x, state = np.arange(60.0).reshape(5, 4, 3), np.ones((2, 3, 4))
    spec = (InputSpec("x", "float32", (None, 4, 3)), InputSpec("state", "float64", (2, 3, 4)))
    axes = {"x": 1, "state": -1}
    parts = feeds({"x": x, "state": state}, spec, batch_size=3, batch_axis=axes)
    assert [samples for _, samples in parts] == [3, 1]
    np.testing.assert_array_equal(parts[0][0]["x"], x[:, :3])
    np.testing.assert_array_equal(parts[1][0]["x"], x[:, 3:])
    assert [feed["state"].shape for feed, _ in parts] == [(2, 3, 3), (2, 3, 1)]
    with pytest.raises(FeedError, match="'x' holds 4 samples, 'state' holds 3"):
        feeds({"x": x, "state": state[:, :, :3]}, spec, batch_axis=axes)
    with pytest.raises(FeedError, match=r"shape 5x4x2, expected \?x\?x3"):
        feeds({"x": x[:, :, :2], "state": state}, spec, batch_axis=axes)


def test_an_input_without_samples_is_passed_whole_with_each_batch() -> None:
    x, table = np.ones((4, 2), np.float32), np.arange(4, dtype=np.int8)
    for order in ({"a": x, "b": table}, {"b": table, "a": x}):
        parts = feeds(order, TWO, batch_size=3, batch_axis={"b": None})
        assert [samples for _, samples in parts] == [3, 1]
        assert all(feed["b"] is table for feed, _ in parts)


def test_a_signal_without_a_batch_axis_is_one_sample() -> None:
    wave = np.linspace(-1, 1, 16, dtype=np.float32)
    spec = (InputSpec("wave", "float32", (None,)),)
    ((feed, samples),) = feeds(wave, spec, batch_axis={"wave": None}, batch_size=4)
    assert samples == 1
    np.testing.assert_array_equal(feed["wave"], wave)
    for shape in ((16,), (None,)):
        spec = (InputSpec("wave", "float32", shape),)
        ((feed, samples),) = feeds(wave, spec, batched=False)
        assert (samples, feed["wave"].shape) == (1, (1, 16))
        ((feed, samples),) = feeds(np.stack([wave, -wave]), spec, batched=False)
        assert (samples, feed["wave"].shape) == (2, (2, 16))


def test_other_axes_where_the_model_has_no_batch_axis() -> None:
    spec = (InputSpec("x", "float32", (3,)), InputSpec("table", "float32", (2,)))
    x, table = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([5, 6], np.float32)
    axes = {"x": 1, "table": None}
    parts = feeds({"x": x, "table": table}, spec, batched=False, batch_size=3, batch_axis=axes)
    assert [samples for _, samples in parts] == [3, 1]
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed, _ in parts]), x.T)
    assert [feed["table"].tolist() for feed, _ in parts] == [[[5, 6]] * 3, [[5, 6]]]


def test_a_slice_of_a_feed_goes_along_its_axes() -> None:
    x = np.arange(24).reshape(2, 4, 3)
    (feed, samples), *_ = make_feeds(x, (InputSpec("x"),), batch_axis={"x": 1})
    assert (samples, count_samples(feed)) == (4, 4)
    part = slice_feed(slice_feed(feed, 1, 4, 4), 1, 3, 3)
    np.testing.assert_array_equal(part["x"], x[:, 2:])
    pair = make_feeds(((x, {"y": x}),), (InputSpec("x", nested="tuple"),), batch_axis={"x": 2})
    (first, _), *_ = pair
    np.testing.assert_array_equal(slice_feed(first, 0, 1, 3)["x"][1]["y"], x[:, :, :1])


@pytest.mark.parametrize("axis", [3, -4])
def test_an_axis_that_is_not_there(axis: int) -> None:
    for spec in (InputSpec("x"), InputSpec("x", "float64", (2, 4, 3))):
        with pytest.raises(FeedError, match=f"'x' has no axis {axis}, its shape is 2x4x3"):
            feeds(np.ones((2, 4, 3)), (spec,), batch_axis={"x": axis})


def test_inputs_may_be_fed_under_further_names() -> None:
    inputs = (InputSpec("a", "float32", (None, 2), also=("left",)), InputSpec("b", "int8", (None,)))
    a, b = np.ones((3, 2), np.float32), np.zeros(3, np.int8)
    for named in ({"left": a, "b": b}, {"a": a, "b": b}):
        ((feed, samples),) = feeds(named, inputs)
        assert (set(feed), samples) == ({"a", "b"}, 3)
    # What else a batch of a data loader holds is left out.
    assert set(feeds([({"left": a, "b": b}, "labels")], inputs)[0][0]) == {"a", "b"}
    with pytest.raises(FeedError, match="'a' is given twice"):
        feeds({"a": a, "left": a, "b": b}, inputs)
