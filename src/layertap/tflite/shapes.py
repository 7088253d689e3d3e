"""Whether the sizes that a file leaves open are what the micro interpreter takes them for.

A converter that does not know the batch writes -1 for it into a tensor's signature, and 1 into its
shape. The micro interpreter works with the shapes and infers none, so a result in which the 1 is
not what comes out (a dilated convolution moves pixels into the batch: four times as many) has too
little memory, and its operator computes a part of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from layertap.errors import SourceError
from layertap.tflite.model import Operator, Subgraph, Tensor, TfliteModel
from layertap.tflite.values import constant
from layertap.tflite.windows import WINDOWS, window_axes


def check_open_shapes(model: TfliteModel) -> None:
    """Raise SourceError where a result of open size has another number of elements than its shape
    in the file says, when the inputs have theirs. Results of operators without a rule here are
    taken for what the file says."""
    for graph in model.subgraphs:
        for number, operator in enumerate(graph.operators):
            results = [graph.tensors[i] for i in operator.outputs if i >= 0]
            rule = _RULES.get(operator.name)
            if rule is None or not any(map(_is_open, results)):
                continue
            elements = rule(_Open(model, graph, operator))
            there = sum(math.prod(result.shape) for result in results)
            if elements is not None and elements != there:
                raise _wrong(number, operator, results[0], there, elements)


def _is_open(result: Tensor) -> bool:
    """Whether the file leaves a size open and takes another one for it."""
    return -1 in (result.signature or ()) and -1 not in result.shape


def _wrong(
    number: int, operator: Operator, result: Tensor, there: int, elements: int
) -> SourceError:
    computed = f"{elements:,} elements" if elements >= 0 else "as many as nobody knows before"
    return SourceError(
        f"TensorFlow Lite Micro cannot compute {result.name!r} right: the file leaves its shape "
        f"open, {list(result.signature or ())}, the interpreter makes room for {there:,} elements, "
        f"and operator {number}, {operator.name}, gives {computed}",
        hint="convert the model with a fixed batch, as in keras.Input(shape, batch_size=1); "
        'runtime="litert" runs it as it is',
    )


@dataclass(frozen=True, slots=True)
class _Open:
    """An operator, and what the file tells of its operands."""

    model: TfliteModel
    graph: Subgraph
    operator: Operator

    def shape(self, position: int) -> tuple[int, ...]:
        """That of an operand, empty for an absent one."""
        inputs = self.operator.inputs
        index = inputs[position] if position < len(inputs) else -1
        return self.graph.tensors[index].shape if index >= 0 else ()

    def shapes(self) -> list[tuple[int, ...]]:
        return [self.graph.tensors[i].shape for i in self.operator.inputs if i >= 0]

    def numbers(self, position: int) -> list[int] | None:
        """An operand that is a constant, flat; None for others."""
        inputs = self.operator.inputs
        index = inputs[position] if position < len(inputs) else -1
        tensor = self.graph.tensors[index] if index >= 0 else None
        if tensor is None or not tensor.data or tensor.dtype not in ("int32", "int64"):
            return None
        found: list[int] = constant(self.model, tensor).ravel().tolist()
        return found


_Rule = Callable[[_Open], int | None]
"""The elements of all results of an operator together; None where that is not known, below 0 where
nobody can know it before it runs."""


def _kept(*positions: int) -> _Rule:
    """As many as these operands have, or all of them."""

    def count(op: _Open) -> int:
        shapes = [op.shape(i) for i in positions] if positions else op.shapes()
        return sum(map(math.prod, shapes))

    return count


def _broadcast(op: _Open) -> int | None:
    try:
        return math.prod(np.broadcast_shapes(*op.shapes()))
    except ValueError:
        return None


def _window(op: _Open) -> int | None:
    axes = window_axes(op.graph, op.operator)
    if axes is None:
        return None
    depth = {"CONV_2D": (1, 0), "DEPTHWISE_CONV_2D": (1, 3)}.get(op.operator.name, (0, 3))
    sizes = [max(0, axis.size) for axis in axes]
    return op.shape(0)[0] * math.prod(sizes) * op.shape(depth[0])[depth[1]]


def _dense(op: _Open) -> int | None:
    weights = op.shape(1)
    if len(weights) != 2 or not weights[1]:
        return None
    return math.prod(op.shape(0)) // weights[1] * weights[0]


def _padded(op: _Open) -> int | None:
    shape, around = op.shape(0), op.numbers(1)
    if around is None or len(around) != 2 * len(shape):
        return None
    return math.prod(n + sum(around[2 * i : 2 * i + 2]) for i, n in enumerate(shape))


def _moved(op: _Open) -> int | None:
    """Pixels moved into the batch, with padding, or back, with cropping: of each axis of blocks."""
    shape, blocks, around = op.shape(0), op.numbers(1), op.numbers(2)
    if blocks is None or around is None:
        return -1
    if len(around) != 2 * len(blocks) or len(shape) <= len(blocks) or 0 in blocks:
        return None
    sizes = list(shape)
    for i, block in enumerate(blocks):
        both = sum(around[2 * i : 2 * i + 2])
        if op.operator.name == "SPACE_TO_BATCH_ND":
            sizes[i + 1] += both
        else:
            sizes[i + 1] = sizes[i + 1] * block - both
            # What does not divide is no model that any interpreter runs.
            sizes[0] //= block
    return math.prod(max(0, size) for size in sizes)


def _reduced(op: _Open) -> int | None:
    shape, axes = op.shape(0), op.numbers(1)
    if axes is None or not all(-len(shape) <= axis < len(shape) for axis in axes):
        return None
    gone = {axis % len(shape) for axis in axes}
    return math.prod(size for i, size in enumerate(shape) if i not in gone)


def _resized(op: _Open) -> int | None:
    shape, size = op.shape(0), op.numbers(1)
    return None if size is None or len(shape) != 4 else shape[0] * math.prod(size) * shape[3]


def _cut(op: _Open) -> int | None:
    shape, begins, sizes = op.shape(0), op.numbers(1), op.numbers(2)
    if begins is None or sizes is None or not len(shape) == len(begins) == len(sizes):
        return None
    rows = zip(shape, begins, sizes, strict=True)
    return math.prod(size if size >= 0 else whole - begin for whole, begin, size in rows)


def _repeated(op: _Open) -> int | None:
    times = op.numbers(1)
    return None if times is None else math.prod(op.shape(0)) * math.prod(times)


_GROUPS: Mapping[str, _Rule] = {
    "ABS CAST CEIL COS CUMSUM DEQUANTIZE ELU EXP EXPAND_DIMS FLOOR GELU HARD_SWISH "
    "L2_NORMALIZATION LEAKY_RELU LOG LOGICAL_NOT LOGISTIC LOG_SOFTMAX NEG QUANTIZE RELU RELU6 "
    "RELU_0_TO_1 RELU_N1_TO_1 PRELU RESHAPE REVERSE_V2 ROUND RSQRT SIN SOFTMAX SPLIT_V SQRT SQUARE "
    "SQUEEZE TANH TRANSPOSE UNPACK ZEROS_LIKE DEPTH_TO_SPACE SPACE_TO_DEPTH": _kept(0),
    "SPLIT": _kept(1),
    "CONCATENATION PACK": _kept(),
    "ADD ADD_N DIV EQUAL FLOOR_DIV FLOOR_MOD GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND "
    "LOGICAL_OR MAXIMUM MINIMUM MUL NOT_EQUAL POW SELECT_V2 SQUARED_DIFFERENCE SUB": _broadcast,
    " ".join(WINDOWS): _window,
    "FULLY_CONNECTED": _dense,
    "PAD PADV2 MIRROR_PAD": _padded,
    "SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND": _moved,
    "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR": _resized,
    "SLICE": _cut,
    "TILE": _repeated,
}
_RULES = {name: rule for names, rule in _GROUPS.items() for name in names.split()}
_REDUCTIONS = "MEAN SUM REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD ARG_MAX ARG_MIN"
_RULES |= dict.fromkeys(_REDUCTIONS.split(), _reduced)

__all__ = ["check_open_shapes"]
