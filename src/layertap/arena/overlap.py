"""How far below its operand an operator may write its result while it still reads the operand.

The reference kernels go through a result from its first byte to its last. If the result starts so
far below the operand that every byte is written only after the last read of what was there, both
may overlap. (Blacker et al., "Reducing Memory Requirements of Deep Neural Networks on Embedded
Devices", 2020, call it diagonal memory optimization.) Read from tflite-micro 90b983c,
tensorflow/lite/kernels/internal/reference/ and its integer_ops/: conv.h, depthwise_conv.h,
depthwiseconv_float.h, pooling.h; kernels of chip makers keep to no such order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flatbuffers import packer

from layertap.core.dtypes import Array, numpy_dtype
from layertap.tflite.flatbuffer import Table
from layertap.tflite.model import Operator, Subgraph, Tensor

_VALID = 1
"""The other padding, 0, is "same". Source: tensorflow/lite/schema/schema.fbs, Padding."""

_MOST = 1 << 22
"""Pixels of a result, each of which is looked at."""

_TYPES = frozenset({"float32", "int8", "int16"})


@dataclass(frozen=True, slots=True)
class _Fields:
    """Numbers of the fields of an operator's options; None where there is no such field."""

    dilation_w: int | None = None
    dilation_h: int | None = None
    filter_w: int | None = None
    filter_h: int | None = None
    padding: int = 0
    stride_w: int = 1
    stride_h: int = 2


WINDOWS = {
    "CONV_2D": _Fields(dilation_w=4, dilation_h=5),
    "DEPTHWISE_CONV_2D": _Fields(dilation_w=5, dilation_h=6),
    "AVERAGE_POOL_2D": _Fields(filter_w=3, filter_h=4),
    "MAX_POOL_2D": _Fields(filter_w=3, filter_h=4),
}
"""The operators whose results come from a window that moves over the operand.
Source: tensorflow/lite/schema/schema.fbs."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of the window: its size with dilation, and by how much it moves."""

    operand: int
    result: int
    filter: int
    stride: int

    def starts(self) -> Array:
        """The first element that each result reads, padding left out. Source of the padding:
        tensorflow/lite/kernels/padding.h."""
        padding = max(0, (self.result - 1) * self.stride + self.filter - self.operand) // 2
        return np.maximum(0, np.arange(self.result) * self.stride - padding)

    def fits(self, valid: bool) -> bool:
        """Whether the result has the size that the window gives."""
        room = self.operand - self.filter + self.stride if valid else self.operand + self.stride - 1
        return self.stride > 0 and self.result > 0 and room // self.stride == self.result


def window_distance(graph: Subgraph, operator: Operator) -> int | None:
    """Bytes by which the first operand of ``operator`` must start above its result, None where
    nothing is known."""
    fields, options = WINDOWS.get(operator.name), operator.settings.table
    if fields is None or options is None or not operator.inputs or operator.inputs[0] < 0:
        return None
    operand, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    if operand.dtype != result.dtype or operand.dtype not in _TYPES:
        return None
    axes = _axes(graph, operator, options, fields)
    valid = options.number(fields.padding, packer.int8) == _VALID
    if axes is None or not all(axis.fits(valid) for axis in axes):
        return None
    images = result.shape[0]
    if operand.shape[0] != images or not 0 < images * result.shape[1] * result.shape[2] <= _MOST:
        return None
    return _distance(operand, result, *axes)


def _axes(
    graph: Subgraph, operator: Operator, options: Table, fields: _Fields
) -> tuple[_Axis, _Axis] | None:
    operand, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    if len(operand.shape) != 4 or len(result.shape) != 4:
        return None
    if fields.filter_h is not None and fields.filter_w is not None:
        height = options.number(fields.filter_h, packer.int32)
        width = options.number(fields.filter_w, packer.int32)
    else:
        filters = graph.tensors[operator.inputs[1]].shape if len(operator.inputs) > 1 else ()
        if len(filters) != 4 or operator.inputs[1] < 0:
            return None
        height, width = filters[1], filters[2]
    spread_h = (
        1 if fields.dilation_h is None else options.number(fields.dilation_h, packer.int32, 1)
    )
    spread_w = (
        1 if fields.dilation_w is None else options.number(fields.dilation_w, packer.int32, 1)
    )
    stride_h = options.number(fields.stride_h, packer.int32)
    stride_w = options.number(fields.stride_w, packer.int32)
    if min(height, width, spread_h, spread_w) < 1:
        return None
    return (
        _Axis(operand.shape[1], result.shape[1], (height - 1) * spread_h + 1, stride_h),
        _Axis(operand.shape[2], result.shape[2], (width - 1) * spread_w + 1, stride_w),
    )


def _distance(operand: Tensor, result: Tensor, rows: _Axis, columns: _Axis) -> int:
    """The most that the end of what is written up to a pixel, all its channels taken together,
    is ahead of the first byte that this pixel or any later one reads."""
    dtype = numpy_dtype(operand.dtype)
    assert dtype is not None
    _, height, width, depth = operand.shape
    images = np.arange(operand.shape[0])[:, None, None] * height
    first = (images + rows.starts()[:, None]) * width + columns.starts()
    reads = first.ravel() * depth * dtype.itemsize
    still_read = np.minimum.accumulate(reads[::-1])[::-1]
    written = (np.arange(len(reads)) + 1) * result.shape[3] * dtype.itemsize
    return max(0, int((written - still_read).max()))


__all__ = ["WINDOWS", "window_distance"]
