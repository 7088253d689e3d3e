"""What a .tflite file holds, as plain immutable values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from flatbuffers import packer

from layertap.core.quantization import Quantization
from layertap.errors import CorruptModel
from layertap.tflite import schema
from layertap.tflite.flatbuffer import Flatbuffer, Table, damaged
from layertap.tflite.foreign import what_is
from layertap.tflite.settings import Settings
from layertap.tflite.sizes import check_shape, stored_bytes

COMPRESSION = "COMPRESSION_METADATA"
"""Metadata of a model whose constants are compressed. Source: tflite-micro, docs/compression.md."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a subgraph.

    ``shape`` is the static shape. ``signature`` is the shape with -1 where any size is allowed,
    None when the file does not say. ``data`` is the byte range of its constant value in the file,
    empty without one. ``channels`` counts the stored scales of a tensor that has zero points too,
    else 0; ``quantization`` is what they mean.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    signature: tuple[int, ...] | None
    data: range
    quantization: Quantization | None
    variable: bool
    sparse: bool
    external: bool
    channels: int = 0


@dataclass(frozen=True, slots=True)
class Operator:
    """``inputs`` and ``outputs`` are tensor indices, -1 for an absent optional one; ``calls`` the
    subgraphs that it runs; ``intermediates`` tensors that only lend it their quantization;
    ``settings`` its options. ``narrow`` if its code is in the older, narrow field of the file only,
    where the micro interpreter overlooks IF and WHILE."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    calls: tuple[int, ...]
    intermediates: tuple[int, ...] = ()
    settings: Settings = field(default=Settings(), compare=False, repr=False)
    narrow: bool = False


@dataclass(frozen=True, slots=True)
class Subgraph:
    """``outputs_slot`` is the byte of the file that refers to the list of outputs, 0 without."""

    index: int
    name: str
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]
    outputs_slot: int


@dataclass(frozen=True, slots=True)
class Signature:
    """``inputs`` and ``outputs`` are pairs of a name and a tensor index."""

    key: str
    subgraph: int
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    outputs_slot: int


@dataclass(frozen=True, slots=True)
class TfliteModel:
    """``metadata`` maps names to byte ranges of the file."""

    data: bytes
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[Signature, ...]
    metadata: dict[str, range]


def parse(data: bytes) -> TfliteModel:
    """Read a .tflite file. Raises CorruptModel for what is damaged or not a .tflite file."""
    if len(data) < 8 or data[4:8] != schema.IDENTIFIER:
        what = what_is(data)
        raise CorruptModel(
            f"this is not a .tflite file{f' but {what}' if what else ''}: "
            "the identifier TFL3 is missing",
            hint="a .tflite file has it at bytes 4 to 8",
        )
    return _Parser(data).model()


class _Parser:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.root = Flatbuffer(data).root()
        self.buffers = [self._buffer(table) for table in self.root.tables(schema.Model.BUFFERS)]
        codes = self.root.tables(schema.Model.OPERATOR_CODES)
        self.codes = [(_operator_name(table), _is_narrow(table)) for table in codes]
        self.graphs = self.root.tables(schema.Model.SUBGRAPHS)

    def model(self) -> TfliteModel:
        if not self.graphs:
            raise damaged("it has no subgraph")
        subgraphs = tuple(self._subgraph(i, table) for i, table in enumerate(self.graphs))
        if not subgraphs[0].tensors:
            raise damaged("its main subgraph has no tensors")
        signatures = self.root.tables(schema.Model.SIGNATURE_DEFS)
        model = TfliteModel(
            self.data,
            subgraphs,
            tuple(self._signature(table, subgraphs) for table in signatures),
            self._metadata(),
        )
        _refuse_loops(subgraphs)
        # Compressed constants are shorter than their shape says.
        if COMPRESSION not in model.metadata:
            _refuse_short(subgraphs)
        return model

    def _buffer(self, table: Table) -> range:
        """Where the buffer's bytes lie: in the flatbuffer, or after it in files above 2 GB."""
        start = table.number(schema.Buffer.OFFSET, packer.uint64)
        # 0 and 1 are placeholders that the writers of such files leave in buffers without data.
        if start > 1:
            stop = start + table.number(schema.Buffer.SIZE, packer.uint64)
            if stop > len(self.data):
                raise damaged(f"a buffer lies at bytes {start:,} to {stop:,}, past the end")
            return range(start, stop)
        return table.blob(schema.Buffer.DATA) or range(0)

    def _subgraph(self, index: int, table: Table) -> Subgraph:
        rows = table.tables(schema.SubGraph.TENSORS)
        tensors = tuple(self._tensor(i, row) for i, row in enumerate(rows))
        operators = table.tables(schema.SubGraph.OPERATORS)
        inputs = _indices(table, schema.SubGraph.INPUTS)
        outputs = _indices(table, schema.SubGraph.OUTPUTS)
        for i in (*inputs, *outputs):
            _at(tensors, i, "tensor")
        return Subgraph(
            index=index,
            name=table.text(schema.SubGraph.NAME) or "",
            tensors=tensors,
            inputs=inputs,
            outputs=outputs,
            operators=tuple(self._operator(row, len(tensors)) for row in operators),
            outputs_slot=table.slot(schema.SubGraph.OUTPUTS),
        )

    def _tensor(self, index: int, table: Table) -> Tensor:
        code = table.number(schema.Tensor.TYPE, packer.int8)
        shape = _indices(table, schema.Tensor.SHAPE)
        signature = _indices(table, schema.Tensor.SHAPE_SIGNATURE)
        known = 0 <= code < len(schema.DTYPES)
        name = table.text(schema.Tensor.NAME) or ""
        check_shape(f"tensor {index} ({name!r})", shape)
        return Tensor(
            index=index,
            name=name,
            dtype=schema.DTYPES[code] if known else f"type{code}",
            shape=shape,
            signature=signature if len(signature) == len(shape) and signature else None,
            data=_at(self.buffers, table.number(schema.Tensor.BUFFER, packer.uint32), "buffer"),
            quantization=_quantization(table.table(schema.Tensor.QUANTIZATION), shape),
            variable=bool(table.number(schema.Tensor.IS_VARIABLE, packer.uint8)),
            sparse=table.table(schema.Tensor.SPARSITY) is not None,
            external=table.number(schema.Tensor.EXTERNAL_BUFFER, packer.uint32) > 0,
            channels=_channels(table.table(schema.Tensor.QUANTIZATION)),
        )

    def _operator(self, table: Table, tensors: int) -> Operator:
        code = table.number(schema.Operator.OPCODE_INDEX, packer.uint32)
        name, narrow = _at(self.codes, code, "op code")
        inputs = _indices(table, schema.Operator.INPUTS)
        outputs = _indices(table, schema.Operator.OUTPUTS)
        between = _indices(table, schema.Operator.INTERMEDIATES)
        for i in (*inputs, *outputs, *between):
            if not -1 <= i < tensors:
                raise damaged(f"an operator {name} refers to tensor {i} of {tensors}")
        calls = _calls(name, table)
        for i in calls:
            _at(self.graphs, i, "subgraph")
        return Operator(name, inputs, outputs, calls, between, self._settings(table), narrow)

    def _settings(self, table: Table) -> Settings:
        custom = table.blob(schema.Operator.CUSTOM_OPTIONS) or range(0)
        return Settings(
            table.table(schema.Operator.BUILTIN_OPTIONS),
            self.data[custom.start : custom.stop],
        )

    def _signature(self, table: Table, subgraphs: tuple[Subgraph, ...]) -> Signature:
        subgraph = table.number(schema.SignatureDef.SUBGRAPH_INDEX, packer.uint32)
        tensors = _at(subgraphs, subgraph, "subgraph").tensors
        inputs = _named(table.tables(schema.SignatureDef.INPUTS))
        outputs = _named(table.tables(schema.SignatureDef.OUTPUTS))
        for _, i in (*inputs, *outputs):
            _at(tensors, i, "tensor")
        return Signature(
            key=table.text(schema.SignatureDef.SIGNATURE_KEY) or "",
            subgraph=subgraph,
            inputs=inputs,
            outputs=outputs,
            outputs_slot=table.slot(schema.SignatureDef.OUTPUTS),
        )

    def _metadata(self) -> dict[str, range]:
        found = {}
        for table in self.root.tables(schema.Model.METADATA):
            buffer = table.number(schema.Metadata.BUFFER, packer.uint32)
            found[table.text(schema.Metadata.NAME) or ""] = _at(self.buffers, buffer, "buffer")
        return found


def _refuse_loops(subgraphs: Sequence[Subgraph]) -> None:
    """Raise CorruptModel when subgraphs run one another in a circle; interpreters would never
    come back from it."""
    done: set[int] = set()
    for start in range(len(subgraphs)):
        trail = [(start, _called(subgraphs[start]))]
        running = {start}
        while trail:
            current, waiting = trail[-1]
            called = next((i for i in waiting if i not in done), None)
            if called is None:
                done.add(current)
                running.discard(current)
                trail.pop()
            elif called in running:
                raise damaged(f"subgraph {called} runs itself")
            else:
                running.add(called)
                trail.append((called, _called(subgraphs[called])))


def _called(subgraph: Subgraph) -> Iterator[int]:
    return (i for operator in subgraph.operators for i in operator.calls)


def _refuse_short(subgraphs: Sequence[Subgraph]) -> None:
    """Raise CorruptModel for constants that lack bytes; kernels would read what lies behind."""
    for subgraph in subgraphs:
        for tensor in subgraph.tensors:
            held = len(tensor.data)
            needed = stored_bytes(tensor.dtype, tensor.shape) or 0
            if 0 < held < needed and not tensor.sparse:
                raise damaged(
                    f"the constant {tensor.name!r} (tensor {tensor.index}) of shape "
                    f"{list(tensor.shape)} has {held:,} bytes and needs {needed:,}"
                )


def _at(items: Sequence[Item], index: int, what: str) -> Item:
    if not 0 <= index < len(items):
        raise damaged(f"it refers to {what} {index} of {len(items)}")
    return items[index]


def _indices(table: Table, field: int) -> tuple[int, ...]:
    numbers = table.numbers(field, "<i4")
    return () if numbers is None else tuple(numbers.tolist())


def _named(tables: list[Table]) -> tuple[tuple[str, int], ...]:
    return tuple(
        (
            table.text(schema.TensorMap.NAME) or "",
            table.number(schema.TensorMap.TENSOR_INDEX, packer.uint32),
        )
        for table in tables
    )


def _operator_name(table: Table) -> str:
    """Codes above 126 do not fit the older field, which then holds 127."""
    code = max(
        table.number(schema.OperatorCode.DEPRECATED_BUILTIN_CODE, packer.int8),
        table.number(schema.OperatorCode.BUILTIN_CODE, packer.int32),
    )
    if code == schema.CUSTOM:
        return table.text(schema.OperatorCode.CUSTOM_CODE) or "CUSTOM"
    return schema.OPERATORS[code] if 0 <= code < len(schema.OPERATORS) else f"OPERATOR_{code}"


def _is_narrow(table: Table) -> bool:
    return not table.number(schema.OperatorCode.BUILTIN_CODE, packer.int32)


def _calls(name: str, table: Table) -> tuple[int, ...]:
    second = name.startswith("STABLEHLO_")
    field = schema.Operator.BUILTIN_OPTIONS_2 if second else schema.Operator.BUILTIN_OPTIONS
    if name not in schema.CALLED_SUBGRAPHS and name not in schema.CALLED_SUBGRAPH_LISTS:
        return ()
    options = table.table(field)
    if options is None:
        return ()
    if name in schema.CALLED_SUBGRAPH_LISTS:
        return _indices(options, schema.CALLED_SUBGRAPH_LISTS[name])
    fields = schema.CALLED_SUBGRAPHS[name]
    return tuple(options.number(field, packer.int32) for field in fields)


def _channels(table: Table | None) -> int:
    if table is None or not table.count(schema.QuantizationParameters.ZERO_POINT, 8):
        return 0
    return table.count(schema.QuantizationParameters.SCALE, 4)


def _quantization(table: Table | None, shape: tuple[int, ...]) -> Quantization | None:
    """None without a scale, and for block-wise schemes, which no pair of lists can express."""
    if table is None or table.number(schema.QuantizationParameters.DETAILS_TYPE, packer.uint8):
        return None
    scales = table.numbers(schema.QuantizationParameters.SCALE, "<f4")
    if scales is None or not len(scales):
        return None
    zeros = table.numbers(schema.QuantizationParameters.ZERO_POINT, "<i8")
    points = [0] if zeros is None or not len(zeros) else zeros.tolist()
    if len(points) == 1:
        points *= len(scales)
    axis = _axis(table, shape, len(scales))
    if axis is None or len(points) != len(scales):
        return None
    return Quantization(tuple(scales.tolist()), tuple(points), axis)


def _axis(table: Table, shape: tuple[int, ...], count: int) -> int | None:
    """The axis along which the scales lie.

    Old converters wrote the axis of the weights into their biases too (3 for a vector), which
    kernels never look at; then the only axis of fitting length is meant.
    """
    axis = table.number(schema.QuantizationParameters.QUANTIZED_DIMENSION, packer.int32)
    if count == 1:
        return 0
    if 0 <= axis < len(shape) and shape[axis] == count:
        return axis
    fitting = [i for i, size in enumerate(shape) if size == count]
    return fitting[0] if len(fitting) == 1 else None


__all__ = ["Operator", "Signature", "Subgraph", "Tensor", "TfliteModel", "parse"]
