"""What a run gives back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.core.captures import Capture, Run, Summary, summarize
from layertap.core.dtypes import Array
from layertap.core.graph import TapPoint
from layertap.core.quantization import Quantization
from layertap.errors import NoSuchTap, StoreError
from layertap.store.memory import MemoryRows


class Listed:
    """Rows in memory that count what is read of them."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self.reads: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def samples(self) -> Array:
        return 10 * np.arange(len(self.rows))

    def read(self, start: int, stop: int) -> Any:
        self.reads.append((start, stop))
        return self.rows[start:stop]


def tap(name: str = "t", dtype: str = "float32", **more: Any) -> TapPoint:
    return TapPoint(name, "activation", "ADD", dtype, more.pop("shape", (None, 2)), 3, **more)


def test_slices_read_nothing_until_asked() -> None:
    rows = Listed(np.arange(20.0).reshape(10, 2))
    part = Capture(tap(), rows)[2:9][1:-2]
    assert rows.reads == []
    assert len(part) == 4
    assert part.raw[:, 0].tolist() == [6, 8, 10, 12]
    assert part.samples.tolist() == [30, 40, 50, 60]
    assert rows.reads == [(3, 7)]
    assert np.asarray(part).shape == (4, 2)
    assert "4 rows of 2 float32" in repr(part)


@pytest.mark.parametrize("key", [0, "a", slice(0, 9, 2), slice(None, None, -1)])
def test_only_slices_of_consecutive_rows(key: Any) -> None:
    with pytest.raises(TypeError, match="consecutive"):
        Capture(tap(), Listed(np.zeros((10, 2))))[key]


PER_TENSOR = Quantization((0.5,), (3,))
PER_CHANNEL = Quantization((0.5, 2.0), (0, 1), axis=1)


def test_values_are_what_raw_stands_for() -> None:
    raw = np.array([[3, 5], [1, 3]], np.int8)
    capture = Capture(tap(dtype="int8", quantization=PER_TENSOR), Listed(raw))
    assert capture.raw is not raw
    assert capture.raw.dtype == np.int8
    assert capture.values.dtype == np.float32
    assert capture.values.tolist() == [[0, 1], [-1, 0]]


def test_values_per_channel_count_the_batch_axis() -> None:
    raw = np.array([[2, 2], [4, 4]], np.int8)
    per_sample = Capture(tap(dtype="int8", quantization=PER_CHANNEL), Listed(raw))
    assert per_sample.values.tolist() == [[1, 2], [2, 6]]
    per_batch = tap(dtype="int8", quantization=PER_CHANNEL, per="batch", shape=(2, 2))
    assert Capture(per_batch, Listed(raw[None])).values.tolist() == [[[1, 2], [2, 6]]]
    ragged = Capture(tap(dtype="int8", quantization=PER_CHANNEL), Listed(list(raw)))
    assert [row.tolist() for row in ragged.values] == [[1, 2], [2, 6]]


@given(st.data())
def test_channels_are_found_wherever_the_samples_were(data: st.DataObject) -> None:
    """Real values of the tensor, made before its rows are, are the same numbers."""
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    axis, batch_axis = data.draw(st.permutations(range(len(shape))))[:2]
    shape[axis] = 3
    scales, zeros = np.array([0.5, 2.0, 0.25], np.float32), np.array([0, 1, -3])
    tensor = np.random.default_rng(0).integers(-99, 99, shape).astype(np.int8)
    along = [-1 if i == axis else 1 for i in range(len(shape))]
    real = (tensor.astype(np.float32) - zeros.reshape(along)) * scales.reshape(along)
    quantization = Quantization(tuple(scales.tolist()), tuple(zeros.tolist()), axis)
    given = {"dtype": "int8", "quantization": quantization, "shape": tuple(shape)}
    one = tap(**given, batch_axis=batch_axis)
    rows, expected = (np.moveaxis(array, batch_axis, 0) for array in (tensor, real))
    np.testing.assert_array_equal(Capture(one, Listed(rows)).values, expected)
    ragged = Capture(one, Listed(list(rows))).values
    np.testing.assert_array_equal(np.stack(ragged), expected)
    for per in ("batch", "run"):
        whole = Capture(tap(**given, per=per), Listed(tensor[None])).values
        np.testing.assert_array_equal(whole, real[None] if per == "batch" else real)


@pytest.mark.parametrize(
    ("axis", "shape", "per"),
    [(0, (2, 3), "sample"), (1, (2, 3), "sample"), (2, (2, 3), "run"), (0, (3, 2), "batch")],
)
def test_scales_that_do_not_fit_are_no_values(axis: int, shape: Any, per: Any) -> None:
    raw = np.ones(shape if per == "sample" else (1, *shape), np.int8)
    quantization = Quantization((0.5, 2.0), (0, 1), axis)
    capture = Capture(tap(dtype="int8", quantization=quantization, per=per), Listed(raw))
    with pytest.raises(StoreError, match=r"do not fit.*\.raw"):
        _ = capture.values
    assert capture.raw.any()


def test_a_value_per_run_has_no_axis_of_rows() -> None:
    weight = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(Capture(tap(per="run"), Listed(weight[None])).raw, weight)
    scalar = Capture(tap(per="run", shape=()), Listed(np.array([1.5]))).raw
    assert (type(scalar), scalar.shape) == (np.ndarray, ())


def test_a_value_per_run_that_is_not_there_yet() -> None:
    with pytest.raises(StoreError, match="no value of 't'"):
        _ = Capture(tap(per="run"), Listed(np.empty((0, 2)))).raw


def a_run(**more: Any) -> Run:
    taps = [tap("conv1"), TapPoint("conv2", "output", "CONV_2D", "int8", (None, 2), 7)]
    rows = [(one, Listed(np.full((4, 2), i))) for i, one in enumerate(taps)]
    return Run(rows, {"runtime": "none"}, samples=4, **more)


def test_a_run_maps_names_and_native_indices() -> None:
    run = a_run()
    assert list(run) == ["conv1", "conv2"]
    assert len(run) == 2
    assert run["#7"].tap.name == "conv2"
    assert run["conv1"].raw.tolist() == [[0, 0]] * 4
    assert set(run.select("op:CONV*")) == {"conv2"}
    with pytest.raises(NoSuchTap, match="near names: conv"):
        run["conv3"]


def test_a_run_shows_its_state() -> None:
    assert "2 taps, 4 samples>" in repr(a_run())
    assert "incomplete" in repr(a_run(complete=False))


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5), min_size=1, max_size=5),
)
def test_statistics_do_not_depend_on_the_blocks(blocks: list[list[float]]) -> None:
    summary = Summary()
    for block in blocks:
        summary.add(np.array(block))
    whole = np.concatenate(blocks)
    assert summary.count == whole.size
    assert (summary.minimum, summary.maximum) == (whole.min(), whole.max())
    assert summary.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-6)
    assert summary.std == pytest.approx(whole.std(), rel=1e-6, abs=1e-5)
    assert summary.zeros == (whole == 0).sum()


def test_statistics_leave_out_what_is_not_finite() -> None:
    summary = Summary()
    summary.add(np.array([np.nan, 1, np.inf, 3]))
    summary.add(np.array([3 + 4j]))
    assert (summary.count, summary.not_finite, summary.maximum) == (3, 2, 5)
    assert np.isnan(Summary().std)


@pytest.mark.parametrize(
    ("rows", "more"),
    [
        (np.arange(20.0).reshape(10, 2), {}),
        ([np.arange(4.0), np.arange(4.0, 20)], {"shape": (None, None)}),
        (np.arange(20.0).reshape(1, 10, 2), {"per": "run", "shape": (10, 2)}),
        (np.arange(20.0).reshape(2, 5, 2), {"per": "batch", "shape": (5, 2)}),
    ],
)
def test_summarize_reads_in_blocks(rows: Any, more: dict[str, Any]) -> None:
    listed = Listed(rows)
    summary = summarize(Capture(tap(**more), listed), block_bytes=24)
    assert (summary.count, summary.mean, summary.zeros) == (20, 9.5, 1)
    if not more:
        assert listed.reads == [(0, 3), (3, 6), (6, 9), (9, 10)]


def test_a_summary_of_ragged_rows_is_read_in_blocks_too() -> None:
    """Without a known size of a row, few rows are read at a time."""
    listed = Listed([np.zeros(3)] * 10)
    summarize(Capture(tap(shape=(None, None)), listed), block_bytes=1 << 10)
    assert max(stop - start for start, stop in listed.reads) <= 256


def test_a_tap_that_never_ran_says_so() -> None:
    tap = TapPoint("a", "activation", "", "float32", (None, 3), 0)
    rows = MemoryRows(tap)
    assert repr(Capture(tap, rows)) == "<Capture 'a': never ran, 3 float32>"
    rows.append(np.zeros((2, 3), np.float32), 0)
    assert repr(Capture(tap, rows)) == "<Capture 'a': 2 rows of 3 float32>"
    assert repr(Capture(tap, rows)[1:1]) == "<Capture 'a': 0 rows of 3 float32>"
