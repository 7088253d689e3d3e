"""Small .tflite files for tests, written field by field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np

from layertap.core.dtypes import Array
from layertap.tflite import schema

_OPTION_TYPES = """
    CONV_2D=1 DEPTHWISE_CONV_2D=2 AVERAGE_POOL_2D=5 MAX_POOL_2D=5 L2_POOL_2D=5 SVDF=6
    FULLY_CONNECTED=8 SOFTMAX=9 CONCATENATION=10 ADD=11 L2_NORMALIZATION=12 RESIZE_BILINEAR=15
    CALL=16 RESHAPE=17 SPACE_TO_DEPTH=19 MUL=21 GATHER=23 MEAN=27 SUM=27 REDUCE_MAX=27 REDUCE_MIN=27
    REDUCE_ALL=27 SUB=28 DIV=29 SQUEEZE=30 STRIDED_SLICE=32 SPLIT=35 CAST=37 ARG_MAX=40
    TRANSPOSE_CONV=49 SHAPE=55 ARG_MIN=57 PACK=59 UNPACK=64 UNIDIRECTIONAL_SEQUENCE_LSTM=71
    RESIZE_NEAREST_NEIGHBOR=74 LEAKY_RELU=75 MIRROR_PAD=77 SPLIT_V=79 IF=92 WHILE=93
    DEPTH_TO_SPACE=94 BATCH_MATMUL=101 CUMSUM=102 CALL_ONCE=103 VAR_HANDLE=111
"""
OPTION_TYPES = {name: int(kind) for name, kind in (e.split("=") for e in _OPTION_TYPES.split())}
"""Numbers of the option tables in the union BuiltinOptions of the schema."""

OptionValue = bool | int | float | str | Sequence[int]


@dataclass(frozen=True)
class TensorSpec:
    """``data`` makes it a constant; ``raw`` does so with bytes that are stored as they are."""

    name: str
    shape: Sequence[int]
    dtype: str = "float32"
    data: Array | None = None
    raw: bytes = b""
    scales: Sequence[float] = ()
    zero_points: Sequence[int] = ()
    axis: int = 0
    variable: bool = False
    signature: Sequence[int] | None = None
    sparse: bool = False


@dataclass(frozen=True)
class OperatorSpec:
    """``options`` maps fields of the operator's option table to their values. A name that is no
    built-in operator is a custom one; ``custom`` are its options."""

    name: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: Mapping[int, OptionValue] = field(default_factory=dict)
    custom: bytes = b""
    intermediates: Sequence[int] = ()


@dataclass(frozen=True)
class SubgraphSpec:
    tensors: Sequence[TensorSpec]
    inputs: Sequence[int]
    outputs: Sequence[int]
    operators: Sequence[OperatorSpec]


@dataclass(frozen=True)
class SignatureSpec:
    key: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    subgraph: int = 0


def write_tflite(
    *subgraphs: SubgraphSpec,
    signatures: Sequence[SignatureSpec] = (),
    metadata: Mapping[str, bytes] | None = None,
) -> bytes:
    """The bytes of a .tflite file; every buffer is aligned to 16 bytes."""
    return _Writer(subgraphs, signatures, metadata or {}).file()


class _Writer:
    def __init__(
        self,
        subgraphs: Sequence[SubgraphSpec],
        signatures: Sequence[SignatureSpec],
        metadata: Mapping[str, bytes],
    ) -> None:
        self.builder = flatbuffers.Builder(1024)
        self.subgraphs, self.signatures, self.metadata = subgraphs, signatures, metadata
        self.buffers = [b""]
        names = (op.name for subgraph in subgraphs for op in subgraph.operators)
        self.codes = list(dict.fromkeys(names))

    def file(self) -> bytes:
        subgraphs = self._vector([self._subgraph(subgraph) for subgraph in self.subgraphs])
        signatures = self._vector([self._signature(signature) for signature in self.signatures])
        metadata = self._vector([self._metadata(*item) for item in self.metadata.items()])
        codes = self._vector([self._code(name) for name in self.codes])
        buffers = self._vector([self._buffer(data) for data in self.buffers])
        model = self._table(
            len(schema.Model) + 2,
            (schema.Model.VERSION, "Uint32", 3),
            (schema.Model.OPERATOR_CODES, "UOffsetTRelative", codes),
            (schema.Model.SUBGRAPHS, "UOffsetTRelative", subgraphs),
            (schema.Model.BUFFERS, "UOffsetTRelative", buffers),
            (schema.Model.METADATA, "UOffsetTRelative", metadata),
            (schema.Model.SIGNATURE_DEFS, "UOffsetTRelative", signatures),
        )
        self.builder.Finish(model, file_identifier=schema.IDENTIFIER)
        return bytes(self.builder.Output())

    def _table(self, size: int, *fields: tuple[int, str, Any]) -> int:
        """A table with ``fields`` of number, kind and value; None and empty offsets are absent."""
        self.builder.StartObject(size)
        for number, kind, value in fields:
            if value is not None and (value or "Offset" not in kind):
                prepend: Callable[..., None] = getattr(self.builder, f"Prepend{kind}Slot")
                # A default that the value never equals, so that zeros are stored too.
                prepend(number, value, 0 if "Offset" in kind else None)
        return int(self.builder.EndObject())

    def _vector(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _numbers(self, values: Sequence[float] | None, dtype: str) -> int:
        if values is None:
            return 0
        return int(self.builder.CreateNumpyVector(np.asarray(values, dtype)))

    def _buffer(self, data: bytes) -> int:
        offset = 0
        if data:
            self.builder.StartVector(1, len(data), 16)
            self.builder.head -= len(data)
            self.builder.Bytes[self.builder.head : self.builder.head + len(data)] = data
            offset = self.builder.EndVector()
        return self._table(3, (schema.Buffer.DATA, "UOffsetTRelative", offset))

    def _stored(self, data: bytes) -> int:
        if not data:
            return 0
        self.buffers.append(data)
        return len(self.buffers) - 1

    def _code(self, name: str) -> int:
        known = name in schema.OPERATORS
        code = schema.OPERATORS.index(name) if known else schema.CUSTOM
        custom = 0 if known else self.builder.CreateString(name)
        return self._table(
            4,
            (schema.OperatorCode.DEPRECATED_BUILTIN_CODE, "Int8", min(code, 127)),
            (schema.OperatorCode.CUSTOM_CODE, "UOffsetTRelative", custom),
            (2, "Int32", 1),
            (schema.OperatorCode.BUILTIN_CODE, "Int32", code),
        )

    def _subgraph(self, subgraph: SubgraphSpec) -> int:
        tensors = self._vector([self._tensor(tensor) for tensor in subgraph.tensors])
        operators = self._vector([self._operator(op) for op in subgraph.operators])
        inputs = self._numbers(subgraph.inputs, "<i4")
        outputs = self._numbers(subgraph.outputs, "<i4")
        return self._table(
            6,
            (schema.SubGraph.TENSORS, "UOffsetTRelative", tensors),
            (schema.SubGraph.INPUTS, "UOffsetTRelative", inputs),
            (schema.SubGraph.OUTPUTS, "UOffsetTRelative", outputs),
            (schema.SubGraph.OPERATORS, "UOffsetTRelative", operators),
        )

    def _tensor(self, tensor: TensorSpec) -> int:
        data = tensor.raw if tensor.data is None else np.ascontiguousarray(tensor.data).tobytes()
        name = self.builder.CreateString(tensor.name)
        shape = self._numbers(tensor.shape, "<i4")
        signature = self._numbers(tensor.signature, "<i4")
        sparsity = self._table(3) if tensor.sparse else 0
        return self._table(
            11,
            (schema.Tensor.SHAPE, "UOffsetTRelative", shape),
            (schema.Tensor.TYPE, "Int8", schema.DTYPES.index(tensor.dtype)),
            (schema.Tensor.BUFFER, "Uint32", self._stored(data)),
            (schema.Tensor.NAME, "UOffsetTRelative", name),
            (schema.Tensor.IS_VARIABLE, "Bool", tensor.variable),
            (schema.Tensor.SPARSITY, "UOffsetTRelative", sparsity),
            (schema.Tensor.SHAPE_SIGNATURE, "UOffsetTRelative", signature),
            (8, "Bool", True),
            (schema.Tensor.QUANTIZATION, "UOffsetTRelative", self._quantization(tensor)),
        )

    def _quantization(self, tensor: TensorSpec) -> int:
        if not tensor.scales:
            return 0
        scales = self._numbers(tensor.scales, "<f4")
        zeros = self._numbers(tensor.zero_points, "<i8")
        return self._table(
            7,
            (schema.QuantizationParameters.SCALE, "UOffsetTRelative", scales),
            (schema.QuantizationParameters.ZERO_POINT, "UOffsetTRelative", zeros),
            (schema.QuantizationParameters.QUANTIZED_DIMENSION, "Int32", tensor.axis),
        )

    def _operator(self, operator: OperatorSpec) -> int:
        inputs = self._numbers(operator.inputs, "<i4")
        outputs = self._numbers(operator.outputs, "<i4")
        between = self._numbers(operator.intermediates or None, "<i4")
        custom = self.builder.CreateByteVector(operator.custom) if operator.custom else 0
        options, kind = 0, None
        if operator.options:
            fields = [self._option(*item) for item in operator.options.items()]
            options, kind = self._table(8, *fields), OPTION_TYPES[operator.name]
        return self._table(
            14,
            (schema.Operator.OPCODE_INDEX, "Uint32", self.codes.index(operator.name)),
            (schema.Operator.INPUTS, "UOffsetTRelative", inputs),
            (schema.Operator.OUTPUTS, "UOffsetTRelative", outputs),
            (3, "Uint8", kind),
            (schema.Operator.BUILTIN_OPTIONS, "UOffsetTRelative", options),
            (schema.Operator.CUSTOM_OPTIONS, "UOffsetTRelative", custom),
            (schema.Operator.INTERMEDIATES, "UOffsetTRelative", between),
        )

    def _option(self, number: int, value: OptionValue) -> tuple[int, str, Any]:
        """Enumerations are stored as wide as numbers; readers look at their lowest byte."""
        match value:
            case bool():
                return number, "Bool", value
            case int():
                return number, "Int32", value
            case float():
                return number, "Float32", value
            case str():
                return number, "UOffsetTRelative", int(self.builder.CreateString(value))
        return number, "UOffsetTRelative", self._numbers(list(value), "<i4")

    def _signature(self, signature: SignatureSpec) -> int:
        inputs = self._vector([self._map(*item) for item in signature.inputs.items()])
        outputs = self._vector([self._map(*item) for item in signature.outputs.items()])
        key = self.builder.CreateString(signature.key)
        return self._table(
            5,
            (schema.SignatureDef.INPUTS, "UOffsetTRelative", inputs),
            (schema.SignatureDef.OUTPUTS, "UOffsetTRelative", outputs),
            (schema.SignatureDef.SIGNATURE_KEY, "UOffsetTRelative", key),
            (schema.SignatureDef.SUBGRAPH_INDEX, "Uint32", signature.subgraph),
        )

    def _map(self, name: str, index: int) -> int:
        text = self.builder.CreateString(name)
        return self._table(
            2,
            (schema.TensorMap.NAME, "UOffsetTRelative", text),
            (schema.TensorMap.TENSOR_INDEX, "Uint32", index),
        )

    def _metadata(self, name: str, data: bytes) -> int:
        text = self.builder.CreateString(name)
        return self._table(
            2,
            (schema.Metadata.NAME, "UOffsetTRelative", text),
            (schema.Metadata.BUFFER, "Uint32", self._stored(data)),
        )


__all__ = ["OperatorSpec", "SignatureSpec", "SubgraphSpec", "TensorSpec", "write_tflite"]
