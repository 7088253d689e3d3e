from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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


@pytest.mark.parametrize(
    ("value", "stored"),
    [(0.25, 1), (0.75, 2), (-0.25, -1), (-0.75, -2), (1e9, 127), (-1e9, -128)],
)
def test_rounds_half_away_from_zero_and_saturates(value: float, stored: int) -> None:
    # TensorFlow Lite's TfLiteRound is std::round: half away from zero.
    quantization = Quantization((0.5,), (0,))
    assert quantization.quantize(np.array([value]), np.dtype(np.int8))[0] == stored
