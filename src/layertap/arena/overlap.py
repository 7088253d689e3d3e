"""How far below its operand an operator may write its result while it still reads the operand.

The reference kernels go through a result from its first byte to its last. If the result starts so
far below the operand that every byte is written only after the last read of what was there, both
may overlap. (Blacker et al., "Reducing Memory Requirements of Deep Neural Networks on Embedded
Devices", 2020, call it diagonal memory optimization.) Read from tflite-micro 90b983c,
tensorflow/lite/kernels/internal/reference/ and its integer_ops/: conv.h, depthwise_conv.h,
depthwiseconv_float.h, pooling.h; kernels of chip makers keep to no such order.
"""

from __future__ import annotations

import numpy as np

from layertap.core.dtypes import Array, numpy_dtype
from layertap.tflite.model import Operator, Subgraph, Tensor
from layertap.tflite.windows import Axis, window_axes

_MOST = 1 << 22
"""Pixels of a result, each of which is looked at."""

_TYPES = frozenset({"float32", "int8", "int16"})


def window_distance(graph: Subgraph, operator: Operator) -> int | None:
    """Bytes by which the first operand of ``operator`` must start above its result, None where
    nothing is known."""
    axes = window_axes(graph, operator)
    if axes is None or not all(axis.result > 0 and axis.size == axis.result for axis in axes):
        return None
    operand, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    if operand.dtype != result.dtype or operand.dtype not in _TYPES:
        return None
    images = result.shape[0]
    if operand.shape[0] != images or not 0 < images * result.shape[1] * result.shape[2] <= _MOST:
        return None
    return _distance(operand, result, *axes)


def _distance(operand: Tensor, result: Tensor, rows: Axis, columns: Axis) -> int:
    """The most that the end of what is written up to a pixel, all its channels taken together,
    is ahead of the first byte that this pixel or any later one reads."""
    dtype = numpy_dtype(operand.dtype)
    assert dtype is not None
    _, height, width, depth = operand.shape
    images = np.arange(operand.shape[0])[:, None, None] * height
    first = (images + _starts(rows)[:, None]) * width + _starts(columns)
    reads = first.ravel() * depth * dtype.itemsize
    still_read = np.minimum.accumulate(reads[::-1])[::-1]
    written = (np.arange(len(reads)) + 1) * result.shape[3] * dtype.itemsize
    return max(0, int((written - still_read).max()))


def _starts(axis: Axis) -> Array:
    """The first element that each result reads, padding left out."""
    return np.maximum(0, np.arange(axis.result) * axis.stride - axis.padding)


__all__ = ["window_distance"]
