"""TensorFlow's operations as steps of a trail: which keep samples in their order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import tensorflow as tf

from layertap.core.dtypes import Array
from layertap.core.following import Key, Shape, Step, Trail
from layertap.runtimes.tfgraph.infer import Path, Type, Types
from layertap.runtimes.tfgraph.scope import ARGUMENT, LOOPS, Node, Ref, Scope

_RESHAPES = frozenset({"Reshape", "ExpandDims", "Squeeze"})
_MERGES = frozenset({"Merge", "RefMerge"})
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
) | (_RESHAPES | _LOOKUPS | _MERGES | {"Switch", "RefSwitch"})
"""What keeps the order along an axis whose size stays as it is; a few of these only on axes other
than those that :func:`_upset` tells."""


def trail(scope: Scope, types: Types, fed: Collection[str]) -> Trail:
    """The nodes of ``scope`` and of the branches inside of it, whose tensors have ``types``, as a
    trail that is given the nodes ``fed``; keys are a path and a reference to a tensor."""
    steps = [step for step in _steps(scope, types, ()) if step.inputs or not _is_fed(step, fed)]
    here = types[()]
    given: dict[Key, Shape | None] = {
        ((), (name, 0)): here[name, 0].shape for name in fed if (name, 0) in here
    }
    return Trail(given, steps)


def _is_fed(one: Step, fed: Collection[str]) -> bool:
    return any(key in {((), (name, 0)) for name in fed} for key, _ in one.outputs)


def _steps(scope: Scope, types: Types, path: Path) -> Iterator[Step]:
    for node in scope.nodes.values():
        if node.op == ARGUMENT:
            continue
        if node.branches and node.op not in LOOPS:
            yield from _branching(node, types, path)
        else:
            yield _of_node(scope, node, types[path], path)


def _branching(node: Node, types: Types, path: Path) -> Iterator[Step]:
    """What the branches of a node compute, of which each is what the node returns."""
    returned: list[list[Key]] = []
    for number, branch in enumerate(node.branches):
        inside: Path = (*path, (node.name, number))
        for arg, ref in zip(branch.args, node.inputs[1:], strict=True):
            key, shape = (inside, (arg, 0)), types[inside][arg, 0].shape
            yield Step("Identity", ((path, ref),), ((key, shape),))
        yield from _steps(branch, types, inside)
        returned.append([(inside, ref) for ref in branch.results])
    for output, keys in enumerate(zip(*returned, strict=True)):
        ref = (node.name, output)
        yield Step("Merge", tuple(keys), (((path, ref), types[path][ref].shape),), kind="merge")


def _of_node(scope: Scope, node: Node, types: Mapping[Ref, Type], path: Path) -> Step:
    outputs: list[tuple[Key, Shape | None]] = []
    while (node.name, len(outputs)) in types:
        ref = (node.name, len(outputs))
        outputs.append(((path, ref), types[ref].shape))
    first = types[node.inputs[0]].shape if node.inputs and node.inputs[0] in types else None

    def constant(number: int) -> Array | None:
        origin = scope.nodes[node.inputs[number][0]]
        return tf.make_ndarray(origin.proto.attr["value"].tensor) if origin.op == "Const" else None

    def attribute(name: str) -> Any:
        return node.proto.attr[name].i if name in node.proto.attr else None

    rank = None if first is None else len(first)
    keys = tuple((path, ref) for ref in node.inputs)
    return step(node.op, keys, tuple(outputs), rank, constant, attribute)


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
    if op in _MERGES:
        return Step(op, inputs, outputs, kind="merge")
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


__all__ = ["step", "trail"]
