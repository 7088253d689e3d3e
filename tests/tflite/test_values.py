from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from layertap.errors import Untappable
from layertap.testing.tflite import SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import parse
from layertap.tflite.values import constant


def read(spec: TensorSpec) -> np.ndarray:
    model = parse(write_tflite(SubgraphSpec([spec], [], [], [])))
    return constant(model, model.subgraphs[0].tensors[0])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int16", "int64", "bool"])
def test_values_come_back(dtype: str) -> None:
    value = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    result = read(TensorSpec("w", (2, 3), dtype, data=value))
    assert (result.dtype, result.shape) == (value.dtype, (2, 3))
    np.testing.assert_array_equal(result, value)
    result[...] = 0


def test_int4_is_unpacked_low_nibble_first() -> None:
    result = read(TensorSpec("w", (5,), "int4", raw=bytes([0x21, 0xF8, 0x07])))
    assert result.dtype == ml_dtypes.int4
    assert result.astype(int).tolist() == [1, 2, -8, -1, 7]


def test_uint4_and_int2() -> None:
    result = read(TensorSpec("w", (2,), "uint4", raw=b"\xf8"))
    assert result.astype(int).tolist() == [8, 15]
    result = read(TensorSpec("w", (4,), "int2", raw=bytes([0b11_10_01_00])))
    assert result.astype(int).tolist() == [0, 1, -2, -1]


def test_bfloat16() -> None:
    value = np.array([1.5, -2], ml_dtypes.bfloat16)
    assert read(TensorSpec("w", (2,), "bfloat16", data=value)).tolist() == [1.5, -2]


def test_strings_are_no_numbers() -> None:
    with pytest.raises(Untappable, match="string"):
        read(TensorSpec("w", (1,), "string", raw=b"abc"))
