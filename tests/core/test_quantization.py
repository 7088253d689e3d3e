from __future__ import annotations

import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from layertap.core.quantization import Quantization


@given(
    arrays(np.int8, st.integers(0, 40)),
    st.floats(1e-6, 1e3),
    st.integers(-128, 127),
)
def test_quantizing_what_was_dequantized_gives_it_back(
    raw: np.ndarray, scale: float, zero: int
) -> None:
    quantization = Quantization((float(np.float32(scale)),), (zero,))
    values = quantization.dequantize(raw)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(quantization.quantize(values, np.dtype(np.int8)), raw)


def test_per_channel_runs_along_its_axis() -> None:
    quantization = Quantization((0.5, 2.0), (0, 1), axis=1)
    raw = np.array([[2, 2], [4, 5]], np.int8)
    np.testing.assert_array_equal(quantization.dequantize(raw), [[1.0, 2.0], [2.0, 8.0]])


@st.composite
def parameters(draw: Any, shape: tuple[int, ...]) -> Quantization:
    axis = draw(st.integers(0, max(len(shape) - 1, 0)))
    count = draw(st.sampled_from([1, shape[axis] if shape else 1])) or 1
    scales = st.floats(2.0**-20, 1e3, width=32)
    return Quantization(
        tuple(draw(st.lists(scales, min_size=count, max_size=count))),
        tuple(draw(st.lists(st.integers(-128, 127), min_size=count, max_size=count))),
        axis,
    )


def along(quantization: Quantization, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales and zero points in a shape that fits an array, as NumPy's broadcasting wants it."""
    shape = [1] * rank
    if len(quantization.scales) > 1:
        shape[quantization.axis] = -1
    scales = np.array(quantization.scales, np.float64)
    return scales.reshape(shape), np.array(quantization.zero_points, np.int64).reshape(shape)


@given(st.data())
def test_real_values_are_those_of_double_precision_arithmetic_on_the_whole(data: Any) -> None:
    dtype = data.draw(st.sampled_from([np.int8, np.uint8, np.int16, np.int32, np.int64]))
    raw = data.draw(arrays(dtype, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
    raw = data.draw(st.sampled_from([raw, raw.T, raw[::-1] if raw.ndim else raw]))
    quantization = data.draw(parameters(raw.shape))
    scales, zeros = along(quantization, raw.ndim)
    expected = ((raw.astype(np.int64) - zeros) * scales).astype(np.float32)
    values = quantization.dequantize(raw)
    assert values.dtype == np.float32
    assert values.tobytes() == np.asarray(expected).tobytes()


@given(st.data())
def test_codes_are_those_of_double_precision_arithmetic_on_the_whole(data: Any) -> None:
    dtype = data.draw(st.sampled_from([np.int8, np.uint8, np.int16, np.int32]))
    shape = data.draw(array_shapes(min_dims=0, max_dims=3, max_side=5))
    numbers = st.floats(width=32, allow_nan=False)
    values = data.draw(arrays(np.float32, shape, elements=numbers))
    quantization = data.draw(parameters(shape))
    scales, zeros = along(quantization, values.ndim)
    scaled = values.astype(np.float64) / scales
    rounded = np.trunc(scaled + np.copysign(0.5, scaled)) + zeros
    limits = np.iinfo(dtype)
    codes, clipped = quantization.saturate(values, np.dtype(dtype))
    assert codes.dtype == dtype
    np.testing.assert_array_equal(codes, rounded.clip(limits.min, limits.max).astype(dtype))
    assert clipped == ((rounded < limits.min) | (rounded > limits.max)).sum()


def test_blocks_that_are_no_multiple_of_the_whole() -> None:
    raw = np.random.default_rng(0).integers(-128, 128, (3, 5, 1237), np.int8)
    scales = tuple(np.linspace(0.1, 3, 1237).astype(np.float32).tolist())
    quantization = Quantization(scales, tuple(range(-600, 637)), axis=2)
    real = (raw.astype(np.int64) - np.arange(-600, 637)) * np.array(scales)
    np.testing.assert_array_equal(quantization.dequantize(raw), real.astype(np.float32))


@pytest.mark.parametrize(
    ("value", "stored"),
    [(0.25, 1), (0.75, 2), (-0.25, -1), (-0.75, -2), (1e9, 127), (-1e9, -128)],
)
def test_rounds_half_away_from_zero_and_saturates(value: float, stored: int) -> None:
    # TensorFlow Lite's TfLiteRound is std::round: half away from zero.
    quantization = Quantization((0.5,), (0,))
    assert quantization.quantize(np.array([value]), np.dtype(np.int8))[0] == stored


def test_what_the_smallest_and_the_largest_stand_for_is_not_clipped() -> None:
    quantization = Quantization((0.5,), (3,))
    values = np.array([-65.5, 62.0, -65.7, 62.2, -65.8, 62.3, np.inf])
    codes, clipped = quantization.saturate(values, np.dtype(np.int8))
    assert codes.tolist() == [-128, 127, -128, 127, -128, 127, 127]
    assert clipped == 3


def test_four_bits() -> None:
    quantization = Quantization((0.5,), (1,))
    codes = quantization.quantize(np.array([-9.0, 0.0, 9.0]), np.dtype(ml_dtypes.int4))
    assert codes.astype(int).tolist() == [-8, 1, 7]
    assert quantization.dequantize(codes).tolist() == [-4.5, 0.0, 3.0]


def peak(make: Any) -> tuple[Any, int]:
    """What ``make`` gives, and the most bytes that NumPy held meanwhile."""
    tracemalloc.start()
    made = make()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return made, most


def test_memory_is_that_of_the_result() -> None:
    raw = np.zeros((16, 1000, 256), np.int8)
    for count in (1, 256):
        quantization = Quantization((0.5,) * count, (0,) * count, axis=2)
        real, most = peak(lambda q=quantization: q.dequantize(raw))
        assert most < 1.2 * 4 * raw.nbytes  # float32, and one block
        assert peak(lambda q=quantization, x=real: q.quantize(x, raw.dtype))[1] < 1.5 * raw.nbytes
