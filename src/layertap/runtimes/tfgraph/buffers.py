"""Which results of a compiled TensorFlow function may be handed out without a copy.

``EagerTensor.numpy()`` copies, and for large taps that copy, into memory not yet mapped, costs more
than computing them did. A result whose buffer nobody else can see is given away as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layertap.core.dtypes import Array
from layertap.runtimes.tfgraph.internals import without_copy

_FRESH = frozenset(
    {
        "Add",
        "AddV2",
        "AvgPool",
        "BatchMatMulV2",
        "BiasAdd",
        "ConcatV2",
        "Conv2D",
        "Conv3D",
        "DepthwiseConv2dNative",
        "Einsum",
        "Elu",
        "Erf",
        "Exp",
        "FusedBatchNormV3",
        "GatherV2",
        "LeakyRelu",
        "LogSoftmax",
        "MatMul",
        "MaxPool",
        "Maximum",
        "Minimum",
        "Mul",
        "RealDiv",
        "Relu",
        "Relu6",
        "Rsqrt",
        "Selu",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Sqrt",
        "Sub",
        "Tanh",
    }
)
"""Operations that write into a new buffer, or into an input's that nobody else holds: no views,
whatever the sizes are (sums and transposes over axes of size 1 make some)."""


def given_away(results: Sequence[Any], *, sized: bool = False) -> list[bool]:
    """For symbolic results of a function: whether their buffers belong to the caller alone.

    That needs an operation that makes no view, and an open batch axis: a result of fixed shape
    could have been folded into a constant, which every call would return again. ``sized``: the
    trace knew the sizes, but not the graph, to which the arguments' batch axes are open; then what
    depends on an argument or a variable is no constant.
    """
    if sized:
        return [bool(result.shape.rank) and _is_fresh(result) for result in results]
    open_batch = (bool(r.shape.rank) and r.shape[0] is None for r in results)
    return [free and _is_fresh(r) for free, r in zip(open_batch, results, strict=True)]


def _is_fresh(result: Any) -> bool:
    operation = result.op
    while operation.type == "Identity":
        operation = operation.inputs[0].op
    return operation.type in _FRESH and _depends_on_an_argument(operation)


def _depends_on_an_argument(operation: Any) -> bool:
    todo, seen = [operation], {operation}
    while todo:
        for tensor in todo.pop().inputs:
            if tensor.op.type == "Placeholder":
                return True
            if tensor.op not in seen:
                seen.add(tensor.op)
                todo.append(tensor.op)
    return False


def arrays(tensors: Sequence[Any], away: Sequence[bool]) -> list[Array]:
    """NumPy arrays of the caller's own, those in ``away`` without a copy.

    TensorFlow simplifies a function before it runs (``x + 0`` becomes ``x``), so that two results
    may turn out to be one buffer: only the first of them is given away, which is seen to in each
    call.
    """
    seen: set[int] = set()
    return [
        _own(tensor, seen) if free else tensor.numpy()
        for tensor, free in zip(tensors, away, strict=True)
    ]


def _own(tensor: Any, seen: set[int]) -> Array:
    value = without_copy(tensor)
    address = value.__array_interface__["data"][0]
    if address in seen:
        return tensor.numpy()  # type: ignore[no-any-return]
    seen.add(address)
    return value
