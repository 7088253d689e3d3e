from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.core.feeds import InputSpec, make_feeds
from layertap.core.quantization import Quantization
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
    ],
)
def test_bad_feeds(x: Any, what: str) -> None:
    with pytest.raises(FeedError, match=what) as caught:
        feeds(x)
    assert caught.value.hint


def test_inputs_of_different_lengths() -> None:
    with pytest.raises(FeedError, match="4 samples.*3"):
        feeds((np.ones((4, 2), np.float32), np.ones(3, np.int8)), TWO)


def test_floats_are_quantized_and_integers_taken_as_they_are() -> None:
    spec = (InputSpec("x", "int8", (None, 1), Quantization((0.5,), (-128,))),)
    ((feed, _),) = feeds(np.array([[0.0], [1.0], [1000.0]]), spec)
    np.testing.assert_array_equal(feed["x"], np.array([[-128], [-126], [127]], np.int8))
    ((feed, _),) = feeds(np.array([[-128], [5]], np.int64), spec)
    np.testing.assert_array_equal(feed["x"], np.array([[-128], [5]], np.int8))
    with pytest.raises(FeedError, match="int64"):
        feeds(np.array([[200]]), spec)


def test_nothing_stands_for_nan_in_a_quantized_input() -> None:
    spec = (InputSpec("x", "int8", (None, 2), Quantization((0.5,), (3,))),)
    ((feed, _),) = feeds(np.array([[np.inf, -np.inf]]), spec)
    assert feed["x"].tolist() == [[127, -128]]
    with pytest.raises(FeedError, match="'x' holds NaN"):
        feeds(np.array([[np.nan, 1]]), spec)


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
