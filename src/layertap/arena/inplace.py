"""Which operators may write their result over an operand that nobody needs afterwards.

In place: both start at the same byte. Overlapping: the result starts somewhat below.

Read from the reference kernels of tflite-micro 90b983c (tensorflow/lite/micro/kernels/ and
tensorflow/lite/kernels/internal/reference/, abbreviated r/). An operator is here only if its
kernel has read everything of the operand that it still needs before it writes to the same place.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from layertap.arena.buffers import Buffer
from layertap.arena.lifetimes import Step
from layertap.arena.overlap import window_distance
from layertap.arena.packing import Reuse
from layertap.core.dtypes import numpy_dtype
from layertap.tflite.model import Operator, Subgraph, Tensor, TfliteModel
from layertap.tflite.windows import WINDOWS

_ONE_LOOP = """
    ABS CAST CEIL COS DEQUANTIZE ELU EXP FLOOR HARD_SWISH LEAKY_RELU LOG LOGICAL_NOT LOGISTIC NEG
    QUANTIZE RELU RELU6 ROUND RSQRT SIN SQRT SQUARE TANH ZEROS_LIKE
"""
"""One loop upward: element i of the result from element i of the operand. elementwise.cc,
activations_common.cc, cast.cc (std::transform), exp.cc, elu.cc (a table), zeros_like.cc (never
reads); r/quantize.h, r/requantize.h, r/dequantize.h, r/logistic.h, r/tanh.h and their integer_ops/,
r/ceil.h, r/floor.h, r/round.h, r/neg.h, r/hard_swish.h, r/leaky_relu.h."""

_ROWS = "SOFTMAX LOG_SOFTMAX"
"""Row by row: the maximum and the sum of a row are known before its first result is written, then
each result replaces the element that it is made from. r/softmax.h (the float and int16 versions
keep the exponentials in the result and read the operand no more), r/log_softmax.h."""

_COPIES = "RESHAPE SQUEEZE EXPAND_DIMS"
"""The result is the operand. reshape.cc skips the copy if both are at one place; squeeze.cc calls
memcpy, which compilers themselves call with equal pointers and thus need to be right;
expand_dims.cc copies element by element."""

_PAIRS = """
    ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE FLOOR_DIV FLOOR_MOD LOGICAL_AND LOGICAL_OR
    EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL
"""
"""Element i of the result from element i of the operand that has as many elements; the other one
may be broadcast. One loop upward, or r/broadcast_loop.h, which writes the result in order and each
element once, and reads an operand of full shape at the place that it writes next. r/add.h, r/sub.h,
r/mul.h, r/div.h, r/binary_function.h, r/maximum_minimum.h, r/comparisons.h, squared_difference.cc
and floor_div.cc (which looks at all divisors before it writes anything)."""

_OPERANDS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(_ONE_LOOP.split(), (0,)),
    **dict.fromkeys(_ROWS.split(), (0,)),
    **dict.fromkeys(_COPIES.split(), (0,)),
    **dict.fromkeys(_PAIRS.split(), (0, 1)),
    # r/prelu.h: as above, the operand that is not the slope.
    "PRELU": (0,),
    # r/select.h: element i of one of them, or a memcpy of it to where it is; not the condition,
    # whose elements may be smaller than those that are written.
    "SELECT_V2": (1, 2),
    # r/add_n.h: all operands at i are summed before the result at i is written.
    "ADD_N": tuple(range(64)),
}

_CALL_MEMCPY = frozenset({"RESHAPE", "SQUEEZE", "SELECT_V2"})
"""memcpy may do anything with bytes that overlap in part."""

_BYTES = frozenset({"int8", "uint8"})
_SAFE = _BYTES | {"bool", "int16", "int32", "int64", "uint32", "float32"}


@dataclass(frozen=True, slots=True)
class Place:
    """An operator that could write its result over an operand: tensor ``input`` of ``subgraph``
    could share the bytes of ``output``."""

    subgraph: int
    operator: int
    op: str
    input: int
    output: int
    reuse: Reuse


def places(
    model: TfliteModel,
    steps: Sequence[Step],
    positions: Mapping[tuple[int, int], int],
    buffers: Sequence[Buffer],
    *,
    overlapping: bool = False,
) -> list[Place]:
    """Where ``model`` allows results in place, or ``overlapping`` their operands, too.

    ``positions`` gives the position in ``buffers`` of the tensors in the arena, by subgraph and
    index.
    """
    entered = Counter(step.subgraph for step in steps if step.operator is None)
    found = []
    for step in steps:
        # What several operators run is alive at times that say nothing of one of them.
        if step.operator is None or entered[step.subgraph] > 1:
            continue
        graph = model.subgraphs[step.subgraph]
        operator = graph.operators[step.operator]
        if len(operator.outputs) != 1 or operator.outputs[0] < 0:
            continue
        output = operator.outputs[0]
        if output in graph.inputs or output in operator.inputs:
            continue
        for i, same, distance in _candidates(graph, operator, overlapping):
            pair = positions.get((step.subgraph, i)), positions.get((step.subgraph, output))
            if pair[0] is None or pair[1] is None:
                continue
            if buffers[pair[0]].last == step.scope == buffers[pair[1]].first:
                reuse = Reuse(pair[0], pair[1], step.scope, same, distance)
                found.append(Place(step.subgraph, step.operator, operator.name, i, output, reuse))
    return found


def _candidates(
    graph: Subgraph, operator: Operator, overlapping: bool
) -> Iterator[tuple[int, bool, int | None]]:
    """Operands that the result may share bytes with, whether from the same byte on, and from which
    distance above it on."""
    result = graph.tensors[operator.outputs[0]]
    if overlapping and operator.name in WINDOWS:
        distance = window_distance(graph, operator)
        if distance is not None and _dies(graph, operator.inputs[0]):
            yield operator.inputs[0], False, distance
        return
    given = enumerate(operator.inputs)
    places = _OPERANDS.get(operator.name, ())
    for i in sorted({tensor for n, tensor in given if n in places and tensor >= 0}):
        operand = graph.tensors[i]
        if _dies(graph, i) and _same_elements(operand, result):
            same = _itemsize(result) <= _itemsize(operand)
            distance = _loop_distance(operator, operand, result) if overlapping else None
            if same or distance is not None:
                yield i, same, distance


def _dies(graph: Subgraph, tensor: int) -> bool:
    """What the subgraph returns is needed after its last operator too."""
    return tensor not in graph.outputs and not graph.tensors[tensor].variable


def _loop_distance(operator: Operator, operand: Tensor, result: Tensor) -> int | None:
    """One loop upward: after element i only those from i + 1 on are read."""
    if operator.name in _CALL_MEMCPY:
        return None
    growth = _itemsize(result) - _itemsize(operand)
    return max(0, growth) * max(0, math.prod(result.shape) - 1)


def _same_elements(operand: Tensor, result: Tensor) -> bool:
    """Whether each element of the result is made from the one at its place in the operand.

    Of two types one must be made of bytes: compilers may assume of others that they never lie at
    the same place, and reorder what is read and written.
    """
    if not {operand.dtype, result.dtype} <= _SAFE:
        return False
    if operand.dtype != result.dtype and not _BYTES & {operand.dtype, result.dtype}:
        return False
    counts = [math.prod(tensor.shape) for tensor in (operand, result)]
    return counts[0] == counts[1]


def _itemsize(tensor: Tensor) -> int:
    dtype = numpy_dtype(tensor.dtype)
    assert dtype is not None
    return dtype.itemsize


__all__ = ["Place", "places"]
