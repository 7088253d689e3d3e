"""Operators whose result comes from a window that moves over an image.

Source: tensorflow/lite/schema/schema.fbs for the options, tensorflow/lite/kernels/padding.h for the
sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

from flatbuffers import packer

from layertap.tflite.flatbuffer import Table
from layertap.tflite.model import Operator, Subgraph

_VALID = 1
"""The other padding, 0, is "same"."""


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


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of the window: its size with dilation, by how much it moves, and whether it stays
    within the operand. ``result`` is the size of the result in the file."""

    operand: int
    result: int
    filter: int
    stride: int
    valid: bool

    @property
    def size(self) -> int:
        """The size of the result that the window gives, 0 or less for none."""
        reach = self.operand - self.filter + 1 if self.valid else self.operand
        return -(-reach // self.stride) if self.stride > 0 else 0

    @property
    def padding(self) -> int:
        """Elements before the first one."""
        return max(0, (self.result - 1) * self.stride + self.filter - self.operand) // 2


def window_axes(graph: Subgraph, operator: Operator) -> tuple[Axis, Axis] | None:
    """Rows and columns of the window of ``operator``; None for what is not of WINDOWS, and where
    the file does not tell."""
    fields, options = WINDOWS.get(operator.name), operator.settings.table
    if fields is None or options is None or not operator.inputs or operator.inputs[0] < 0:
        return None
    operand, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    filters = _filters(graph, operator, options, fields)
    if len(operand.shape) != 4 or len(result.shape) != 4 or filters is None:
        return None
    spread_h = _number(options, fields.dilation_h, 1)
    spread_w = _number(options, fields.dilation_w, 1)
    if min(*filters, spread_h, spread_w) < 1:
        return None
    height, width = (filters[0] - 1) * spread_h + 1, (filters[1] - 1) * spread_w + 1
    stride_h, stride_w = (_number(options, f) for f in (fields.stride_h, fields.stride_w))
    valid = options.number(fields.padding, packer.int8) == _VALID
    return (
        Axis(operand.shape[1], result.shape[1], height, stride_h, valid),
        Axis(operand.shape[2], result.shape[2], width, stride_w, valid),
    )


def _filters(
    graph: Subgraph, operator: Operator, options: Table, fields: _Fields
) -> tuple[int, int] | None:
    """Height and width of the window, without dilation."""
    if fields.filter_h is not None:
        return _number(options, fields.filter_h), _number(options, fields.filter_w)
    weights = operator.inputs[1] if len(operator.inputs) > 1 else -1
    shape = graph.tensors[weights].shape if weights >= 0 else ()
    return (shape[1], shape[2]) if len(shape) == 4 else None


def _number(options: Table, field: int | None, default: int = 0) -> int:
    return default if field is None else options.number(field, packer.int32, default)


__all__ = ["WINDOWS", "Axis", "window_axes"]
