"""Every element type that a runtime of .tflite files hands out arrives as it was fed."""

from __future__ import annotations

import numpy as np
import pytest

import layertap
from layertap.runtimes.litert.session import LitertSession
from layertap.runtimes.tflm.session import TflmSession
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite

pytestmark = pytest.mark.slow

RUNTIMES = {"litert": LitertSession.readable, "tflm": TflmSession.readable}
TYPES = [(runtime, dtype) for runtime, dtypes in RUNTIMES.items() for dtype in sorted(dtypes)]


@pytest.mark.parametrize(("runtime", "dtype"), TYPES)
def test_types(runtime: str, dtype: str) -> None:
    tensors = [TensorSpec("x", (1, 4), dtype), TensorSpec("y", (1, 4), dtype)]
    tensors.append(TensorSpec("z", (1, 2, 2), dtype))
    tensors.append(TensorSpec("shape", (3,), "int32", data=np.array([1, 2, 2], np.int32)))
    tensors.append(TensorSpec("flat", (2,), "int32", data=np.array([1, 4], np.int32)))
    operators = [OperatorSpec("RESHAPE", [0, 3], [2]), OperatorSpec("RESHAPE", [2, 4], [1])]
    data = write_tflite(SubgraphSpec(tensors, [0], [1], operators))
    x = np.array([[0, 1, 1, 0]]).astype(dtype)
    with layertap.open(data, runtime=runtime) as model:
        run = model.capture(x, taps=["x", "z", "y"])
    for name in "xyz":
        assert run[name].raw.dtype == dtype
        np.testing.assert_array_equal(run[name].raw.reshape(1, 4), x)
