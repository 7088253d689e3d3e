"""Element types on disk."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from layertap.core.dtypes import numpy_dtype
from layertap.errors import StoreError
from layertap.store.elements import NATIVE, narrow, stored_dtype, widen
from layertap.testing.store import DTYPES

SMALL = [name for name in DTYPES if name not in NATIVE]
SMALL += ["float8_e3m4", "float8_e4m3", "float8_e8m0fnu", "float4_e2m1fn", "float6_e2m3fn", "int2"]


@pytest.mark.parametrize("name", SMALL)
def test_widening_keeps_values_and_narrowing_every_code(name: str) -> None:
    dtype = numpy_dtype(name)
    assert dtype is not None
    if name.startswith(("int", "uint")):
        info = ml_dtypes.iinfo(dtype)
        rows = np.arange(info.min, info.max + 1).astype(dtype)
    elif name == "bfloat16":
        rows = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    else:
        rows = np.arange(1 << ml_dtypes.finfo(dtype).bits, dtype=np.uint8).view(dtype)
    wide = widen(rows)
    assert wide.dtype == stored_dtype(dtype)
    assert wide.dtype.name in NATIVE
    np.testing.assert_array_equal(wide, rows.astype(wide.dtype))
    assert narrow(wide, dtype).tobytes() == rows.tobytes()


def test_native_rows_are_not_copied() -> None:
    rows = np.zeros((3, 4), np.float32)
    assert np.shares_memory(widen(rows), rows)
    assert np.shares_memory(narrow(rows, rows.dtype), rows)


@pytest.mark.parametrize("dtype", ["U3", "S3", "O", "M8[s]", "g"])
def test_what_is_not_stored(dtype: str) -> None:
    with pytest.raises(StoreError, match="cannot be stored"):
        stored_dtype(np.dtype(dtype))
