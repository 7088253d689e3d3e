"""The digest of a run's inputs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.core.feeds import slice_feed
from layertap.store.digest import InputDigest

FEED = {
    "x": np.arange(60, dtype=np.float32).reshape(12, 5),
    "ids": np.arange(12),
    "mask": np.ones((3, 3), bool),
    "training": False,
    "bits": np.arange(12).astype(ml_dtypes.bfloat16),
}


def digest_of(*feeds: tuple[int, dict[str, Any]]) -> str:
    digest = InputDigest()
    for samples, feed in feeds:
        digest.update(samples, feed)
    return digest.hexdigest()


@given(st.sets(st.integers(1, 11)))
def test_it_is_the_same_however_the_samples_are_cut(cuts: set[int]) -> None:
    edges = [0, *sorted(cuts), 12]
    # The mask has 3 rows: a batch of 3 samples would be cut through it, by the engine too.
    feeds = [(stop - start, slice_feed(FEED, start, stop, 12)) for start, stop in pairwise(edges)]
    if 3 not in {samples for samples, _ in feeds}:
        assert digest_of(*feeds) == digest_of((12, FEED))


@pytest.mark.parametrize(
    "other",
    [
        {"x": FEED["x"][::-1]},
        {"x": FEED["x"].astype(np.float64)},
        {"x": FEED["x"].reshape(12, 1, 5)},
        {"ids": FEED["ids"] + 1},
        {"mask": np.zeros((3, 3), bool)},
        {"training": True},
        {"bits": FEED["bits"] + 1},
        {"more": np.zeros(12)},
    ],
)
def test_it_tells_inputs_apart(other: dict[str, Any]) -> None:
    assert digest_of((12, {**FEED, **other})) != digest_of((12, FEED))


def test_order_of_the_inputs_does_not_matter_but_their_names_do() -> None:
    a, b = np.zeros((2, 3)), np.ones((2, 3))
    assert digest_of((2, {"a": a, "b": b})) == digest_of((2, {"b": b, "a": a}))
    assert digest_of((2, {"a": a, "b": b})) != digest_of((2, {"a": b, "b": a}))


def test_nested_inputs_and_objects() -> None:
    nested = {"kwargs": {"x": np.arange(4), "pair": (np.ones(2), "text")}, "object": object()}
    same = {**nested, "object": object()}
    assert digest_of((4, nested)) == digest_of((4, same))
    other = {"kwargs": {"x": np.arange(4), "pair": (np.ones(2), "next")}, "object": object()}
    assert digest_of((4, nested)) != digest_of((4, other))


@pytest.mark.parametrize("dtype", [str, bytes, object])
def test_texts_count_by_what_they_say(dtype: type) -> None:
    texts = np.array(["a", "longer", ""], dtype)
    whole = digest_of((3, {"x": texts}))
    assert whole == digest_of((1, {"x": np.array(["a"], dtype)}), (2, {"x": texts[1:]}))
    assert whole != digest_of((3, {"x": np.array(["a", "other", ""], dtype)}))
    assert digest_of((0, {"x": texts[:0]})) != whole


def test_tensors_that_numpy_cannot_read() -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(8, dtype=torch.bfloat16, requires_grad=True)
    with torch.no_grad():
        y = x + 1
    assert digest_of((8, {"x": x})) == digest_of((3, {"x": x[:3]}), (5, {"x": x[3:]}))
    assert digest_of((8, {"x": x})) != digest_of((8, {"x": y}))
