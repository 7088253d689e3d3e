"""How a value becomes what a model takes: codes for quantized inputs, other dtypes, clipping."""

from __future__ import annotations

import logging
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from layertap.core.feeds import InputSpec, make_feeds
from layertap.core.quantization import Quantization
from layertap.errors import FeedError

INT8 = InputSpec("x", "int8", (None, 1), Quantization((0.5,), (-128,)))
"""Its codes stand for 0 to 127.5."""


def fed(x: Any, spec: InputSpec = INT8) -> Any:
    ((feed, _),) = make_feeds(x, (spec,))
    return feed["x"]


def column(*numbers: float, dtype: Any = None) -> Any:
    return np.array(numbers, dtype).reshape(-1, 1)


def test_real_numbers_are_quantized() -> None:
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        x = fed(column(0, 1, 1000, dtype=dtype))
        assert x.dtype == np.int8
        assert x.ravel().tolist() == [-128, -126, 127]


def test_integers_of_the_inputs_own_dtype_are_codes() -> None:
    codes = column(-128, 5, 127, dtype=np.int8)
    assert fed(codes) is codes


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, bool])
def test_other_integers_may_be_either_and_are_refused_with_both_ways_out(dtype: Any) -> None:
    x = column(0, 1, dtype=dtype)
    with pytest.raises(FeedError, match="codes of int8, or real numbers") as caught:
        fed(x)
    hint = caught.value.hint
    assert hint == "real numbers: np.asarray(x, 'float32'); codes: np.asarray(x, 'int8')"
    assert fed(np.asarray(x, "float32")).ravel().tolist() == [-128, -126]
    assert fed(np.asarray(x, "int8")).ravel().tolist() == [0, 1]


def test_what_would_wrap_around_as_codes_is_no_way_out() -> None:
    for numbers in ([0, 128], [-129, 0], [0, 255]):
        with pytest.raises(FeedError) as caught:
            fed(column(*numbers, dtype=np.int64))
        hint = caught.value.hint
        assert "real numbers: np.asarray(x, 'float32')" in hint
        assert "'int8')" not in hint
        assert "codes of int8, which are -128 to 127" in hint


def test_numbers_in_lists_may_be_either_too() -> None:
    with pytest.raises(FeedError, match="codes of int8, or real numbers"):
        fed([[1], [2]])
    assert fed([[1.0], [2.0]]).ravel().tolist() == [-126, -124]


@pytest.mark.parametrize(
    ("dtype", "smallest", "largest"),
    [("int8", -128, 127), ("uint8", 0, 255), ("int32", -(2**31), 2**31 - 1), ("int4", -8, 7)],
)
def test_integers_for_an_input_without_a_scale_go_through_when_they_fit(
    dtype: str, smallest: int, largest: int
) -> None:
    spec = InputSpec("x", dtype, (None, 1))
    x = fed(column(smallest, largest, dtype=np.int64), spec)
    assert x.dtype.name == dtype
    assert x.ravel().astype(np.int64).tolist() == [smallest, largest]
    for beyond in (smallest - 1, largest + 1):
        with pytest.raises(FeedError, match=f"'x' is int64, the model takes {dtype}"):
            fed(column(0, beyond, dtype=np.int64), spec)


def test_other_dtypes() -> None:
    real = InputSpec("x", "float32", (None, 1))
    for dtype in (np.uint8, np.int64, bool, np.float64, np.float16):
        x = fed(column(0, 1, dtype=dtype), real)
        assert x.dtype == np.float32
        assert x.ravel().tolist() == [0, 1]
    for spec in (real, INT8, InputSpec("x", "int32", (None, 1))):
        with pytest.raises(FeedError, match="'x' is complex64, the model takes"):
            fed(column(1, dtype=np.complex64), spec)
    with pytest.raises(FeedError, match="'x' is float64, the model takes int32"):
        fed(column(1.0), InputSpec("x", "int32", (None, 1)))


def test_nothing_stands_for_nan_in_a_quantized_input() -> None:
    assert fed(column(np.inf, -np.inf)).ravel().tolist() == [127, -128]
    with pytest.raises(FeedError, match="'x' holds NaN"):
        fed(column(np.nan, 1))


def test_clipped_values_are_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    x = column(*range(256), dtype=np.float32)  # 128 to 255 are beyond 127.5
    made = make_feeds(x, (INT8,), batch_size=64)
    assert made.clipped == {}
    first, made = made.peek()
    assert first is not None
    assert made.clipped == {}
    assert len(list(made)) == 4
    assert made.clipped == {"x": {"clipped": 128, "total": 256}}
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("layertap.core.inputs", logging.WARNING)
    told = record.getMessage()
    assert "'x': 33.3 % of the first 192 values" in told
    assert "int8 stands for (0 to 127.5)" in told


def test_a_negligible_share_is_counted_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    x = np.ones((1000, 1), np.float32)
    x[:10] = 1000
    made = make_feeds([x], (INT8,))
    list(made)
    assert made.clipped == {"x": {"clipped": 10, "total": 1000}}
    assert caplog.records == []
    list(make_feeds(np.concatenate([x, x[:1]]), (INT8,)))
    assert len(caplog.records) == 1
