"""TensorFlow's operations as steps of a trail: which keep samples in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layertap.core.dtypes import Array
from layertap.runtimes.following import Key, Shape, Step

_RESHAPES = frozenset({"Reshape", "ExpandDims", "Squeeze"})
_LOOKUPS = frozenset({"Gather", "GatherV2", "GatherNd", "ResourceGather", "ResourceGatherNd"})

_PLAIN = frozenset(
    """
    Abs Acos Acosh Add AddN AddV2 All Any ArgMax ArgMin Asin Asinh Atan Atan2 Atanh AvgPool
    AvgPool3D BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchNormWithGlobalNormalization BiasAdd
    BiasAddV1 BroadcastArgs BroadcastTo Bucketize Cast Ceil CheckNumerics ClipByValue Complex
    ComplexAbs Concat ConcatV2 Conj Const Conv2D Conv2DBackpropInput Conv3D Conv3DBackpropInputV2
    Cos Cosh Cumprod Cumsum DepthToSpace DepthwiseConv2dNative Div DivNoNan Einsum Elu EnsureShape
    Equal Erf Erfc Exp Expm1 FFT FFT2D FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
    FakeQuantWithMinMaxVarsPerChannel Fill Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2
    FusedBatchNormV3 Greater GreaterEqual IFFT IFFT2D IRFFT Identity IdentityN Imag Inv IsFinite
    IsInf IsNan LRN LeakyRelu Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr
    LookupTableFindV2 MatMul MatrixBandPart Max MaxPool MaxPool3D MaxPoolV2 Maximum Mean Min
    Minimum MirrorPad Mod Mul MulNoNan Neg NextAfter NoOp NotEqual OneHot OnesLike Pack Pad PadV2
    Placeholder PlaceholderWithDefault Pow PreventGradient Prod QuantizeAndDequantizeV2
    QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 RFFT RFFT2D RandomStandardNormal RandomUniform
    RandomUniformInt Range Rank ReadVariableOp Real RealDiv Reciprocal Relu Relu6 ResizeBicubic
    ResizeBilinear ResizeNearestNeighbor Rint Round Rsqrt Select SelectV2 Selu Shape ShapeN
    Sigmoid Sign Sin Sinh Size Slice Snapshot Softmax Softplus Softsign SpaceToDepth Split SplitV
    Sqrt Square SquaredDifference Squeeze StatelessRandomNormalV2 StatelessRandomUniformIntV2
    StatelessRandomUniformV2 StopGradient StridedSlice StringLower StringStrip
    StringToHashBucketFast Sub Sum Tan Tanh Tile TopKV2 Transpose TruncateDiv TruncatedNormal
    Unpack VarHandleOp VariableV2 Xdivy Xlogy ZerosLike
    """.split()  # noqa: SIM905
) | (_RESHAPES | _LOOKUPS)
"""What keeps the order along an axis whose size stays as it is; a few of these only on axes other
than those that :func:`_upset` tells."""


def step(
    op: str,
    inputs: tuple[Key, ...],
    outputs: tuple[tuple[Key, Shape | None], ...],
    rank: int | None,
    constant: Callable[[int], Array | None],
    attribute: Callable[[str], Any],
) -> Step:
    """One operation. ``rank`` is that of its first input, ``constant`` gives the value of one of
    its inputs, if that is constant, ``attribute`` one of its numbers, if it has that."""
    if op not in _PLAIN:
        return Step(op, inputs, outputs, None)
    if op in _LOOKUPS:
        return Step(op, inputs, outputs, kind="lookup", shared=int(attribute("batch_dims") or 0))
    if op in _RESHAPES:
        # The shape is no more than a shape: where elements go does not depend on it here.
        return Step(op, inputs, outputs, kind="reshape")
    return Step(op, inputs, outputs, _upset(op, rank, constant))


def _upset(
    op: str, rank: int | None, constant: Callable[[int], Array | None]
) -> frozenset[int] | None:
    """The axes along which an operation may change the order; None where that is not known."""
    if op == "TopKV2":
        return None if rank is None else frozenset({rank - 1})
    if op == "StridedSlice":
        steps = constant(3)
        return frozenset() if steps is not None and bool((steps > 0).all()) else None
    return frozenset()


__all__ = ["step"]
