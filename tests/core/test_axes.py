"""The rule of the further run, on rearrangements whose right axis is plain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.core.axes import changed_order, given_axes, reordered
from layertap.core.graph import Graph, TapPoint
from layertap.errors import PlanError


@given(
    st.integers(2, 6), st.booleans(), st.integers(0, 2), st.sampled_from(["f4", "f2", "i1", "c8"])
)
def test_the_axis_along_which_samples_lie(
    samples: int, longer: bool, axis: int, dtype: str
) -> None:
    shape = [samples, samples, samples, 40]
    values = (np.random.default_rng(2).standard_normal(shape) * 50).astype(dtype)
    order = changed_order(samples, longer=longer)
    assert reordered(values, values.take(order, axis), order, samples) == axis


@pytest.mark.parametrize("longer", [True, False])
@pytest.mark.parametrize("samples", [2, 3, 5])
@pytest.mark.parametrize(
    "rearranged",
    [
        lambda x: x[::-1],
        lambda x: np.roll(x, 1, 0),
        lambda x: np.sort(x, 0),
        lambda x: x.T @ x,
        lambda x: np.zeros((3, 3)),
    ],
    ids=["reversed", "moved on", "sorted", "mixed", "constant"],
)
def test_what_rearranges_or_mixes_samples_has_no_axis(
    rearranged: object, samples: int, longer: bool
) -> None:
    x = np.random.default_rng(1).standard_normal((samples, 3))
    order = changed_order(samples, longer=longer)
    before, after = rearranged(x), rearranged(x[order])  # type: ignore[operator]
    assert reordered(before, after, order, samples) is None


def test_rounding_is_no_difference_and_anything_else_is() -> None:
    x = np.random.default_rng(3).standard_normal((4, 8)).astype(np.float32)
    order = changed_order(4, longer=False)
    after = x[order]
    assert reordered(x, after + np.float32(1e-6), order, 4) == 0
    after[2, 3] += 0.1
    assert reordered(x, after, order, 4) is None
    codes = (x * 40).astype(np.int8)
    assert reordered(codes, codes[order] + 1, order, 4) == 0
    assert reordered(codes, codes[order] + 2, order, 4) is None


def test_axes_that_are_given() -> None:
    taps = [
        TapPoint("a", "activation", "", "float32", (2, 3, 4), 0),
        TapPoint("w", "weight", "", "float32", (2,), 1, per="run"),
    ]
    graph = Graph(taps)
    (a, w) = given_axes(graph, taps, {"a": -2, "kind:weight": 0})
    assert (a.per, a.batch_axis, a.shape, a.row_shape) == ("sample", 1, (2, None, 4), (2, 4))
    assert w == taps[1]
    assert given_axes(graph, taps, {"*": None})[0].per == "batch"
    with pytest.raises(PlanError, match="has no axis 3"):
        given_axes(graph, taps, {"a": 3})
