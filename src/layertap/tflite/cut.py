"""A .tflite model that ends at chosen tensors, without what only the rest of it needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flatbuffers import packer

from layertap.errors import PlanError
from layertap.tflite import schema
from layertap.tflite.edit import OFFLINE_PLAN, check_can_be_output
from layertap.tflite.flatbuffer import Flatbuffer, Table
from layertap.tflite.layout import layout_bytes, layout_of
from layertap.tflite.model import Operator, Subgraph, TfliteModel, parse
from layertap.tflite.names import unique_names
from layertap.tflite.options import OPTIONS, QUANTIZATION, SPARSITY, VARIANT
from layertap.tflite.rebuild import (
    Choice,
    Field,
    Node,
    Vector,
    copied,
    made,
    numbers,
    text,
    vector,
    written,
)

_RESOURCES = frozenset({"READ_VARIABLE", "HASHTABLE_FIND", "HASHTABLE_SIZE"})
"""Operators that read what lives outside the tensors."""

_RESOURCE_WRITERS = frozenset({"ASSIGN_VARIABLE", "CALL_ONCE", "HASHTABLE_IMPORT"})
"""Operators that are kept for what they do there, though nothing may use their outputs."""

_DESCRIBES_OUTPUTS = frozenset({"TFLITE_METADATA"})
"""Metadata about inputs and outputs, which no longer holds."""

_REFERS_TO_TENSORS = frozenset({"COMPRESSION_METADATA"})
_ALIGNMENT = 16


def cut(data: bytes, tensors: Iterable[int], *, subgraph: int = 0) -> bytes:
    """The part of a .tflite file that computes ``tensors`` of ``subgraph``, its only outputs.

    Operators, subgraphs, weights and inputs that these do not need are gone; what remains keeps
    its order, its names, its values and its alignment. Operators that write variables which the
    part reads stay, so that it behaves the same from one execution to the next.

    Raises CorruptModel for a damaged file, Untappable for tensors that cannot be outputs, and
    PlanError for models that cannot be cut.
    """
    model = parse(data)
    wanted = list(dict.fromkeys(tensors))
    if not wanted:
        raise PlanError("there is nothing to cut to", hint="name at least one tensor")
    for index in wanted:
        check_can_be_output(model, subgraph, index)
    return _Cut(model, _kept(model, subgraph, wanted)).file()


@dataclass(frozen=True, slots=True)
class _Part:
    """What is kept of one subgraph: indices into it, in rising order but for ``outputs``."""

    index: int
    operators: tuple[int, ...]
    tensors: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def _kept(model: TfliteModel, main: int, wanted: Sequence[int]) -> list[_Part]:
    graph = model.subgraphs[main]
    operators = _needed_operators(model, graph, wanted)
    used = {i for number in operators for i in _touched(graph.operators[number])} | set(wanted)
    inputs = tuple(i for i in graph.inputs if i in used) or graph.inputs
    tensors = tuple(sorted(used | set(inputs)))
    parts = {main: _Part(main, operators, tensors, inputs, tuple(wanted))}
    waiting = [call for number in operators for call in graph.operators[number].calls]
    while waiting:
        index = waiting.pop()
        if index not in parts:
            called = model.subgraphs[index]
            everything = tuple(range(len(called.operators)))
            tensors = tuple(range(len(called.tensors)))
            parts[index] = _Part(index, everything, tensors, called.inputs, called.outputs)
            waiting += [call for operator in called.operators for call in operator.calls]
    # The interpreters run the first subgraph.
    return [parts.pop(main), *(parts[index] for index in sorted(parts))]


def _needed_operators(
    model: TfliteModel, graph: Subgraph, wanted: Sequence[int]
) -> tuple[int, ...]:
    kept: set[int] = set()
    values = set(wanted)
    while True:
        before = len(kept)
        stateful = any(_reads_resources(model, graph.operators[i]) for i in kept)
        for number in reversed(range(len(graph.operators))):
            operator = graph.operators[number]
            writes = stateful and _writes_resources(operator)
            if number not in kept and (writes or values & _changed(graph, operator)):
                kept.add(number)
                values |= {i for i in operator.inputs if i >= 0}
        if len(kept) == before:
            return tuple(sorted(kept))


def _changed(graph: Subgraph, operator: Operator) -> set[int]:
    """What an operator computes; its kernel may write to the variables among its inputs."""
    variables = {i for i in operator.inputs if i >= 0 and graph.tensors[i].variable}
    return variables.union(operator.outputs)


def _reads_resources(model: TfliteModel, operator: Operator) -> bool:
    called = {operator.name, *(name for i in operator.calls for name in _names(model, i, set()))}
    return bool(called & _RESOURCES or called - set(schema.OPERATORS))


def _names(model: TfliteModel, index: int, seen: set[int]) -> set[str]:
    """Names of all operators that running subgraph ``index`` can run."""
    if index in seen:
        return set()
    seen.add(index)
    found = set()
    for operator in model.subgraphs[index].operators:
        found.add(operator.name)
        for call in operator.calls:
            found |= _names(model, call, seen)
    return found


def _writes_resources(operator: Operator) -> bool:
    return operator.name in _RESOURCE_WRITERS or not operator.outputs


def _touched(operator: Operator) -> set[int]:
    every = (*operator.inputs, *operator.outputs, *operator.intermediates)
    return {i for i in every if i >= 0}


class _Cut:
    """Writes the kept parts; remembers the new number of whatever is counted."""

    def __init__(self, model: TfliteModel, parts: Sequence[_Part]) -> None:
        self.model, self.parts = model, list(parts)
        self.root = Flatbuffer(model.data).root()
        self.graphs = self.root.tables(schema.Model.SUBGRAPHS)
        self.subgraphs = {part.index: new for new, part in enumerate(parts)}
        self.codes: dict[int, int] = {}
        # The first buffer is the empty one by convention.
        self.buffers: dict[int, int] = {0: 0}
        self.added: list[bytes] = []

    def file(self) -> bytes:
        subgraphs = [self._subgraph(part) for part in self.parts]
        signatures = self._signatures()
        metadata = self._metadata()
        codes = self.root.tables(schema.Model.OPERATOR_CODES)
        return written(
            made(
                {
                    schema.Model.VERSION: (packer.uint32, 3),
                    schema.Model.OPERATOR_CODES: [copied(codes[i], {1: 1}) for i in self.codes],
                    schema.Model.SUBGRAPHS: subgraphs,
                    schema.Model.DESCRIPTION: vector(self.root, schema.Model.DESCRIPTION),
                    schema.Model.BUFFERS: self._buffers(),
                    schema.Model.METADATA: metadata or None,
                    schema.Model.SIGNATURE_DEFS: signatures or None,
                }
            ),
            schema.IDENTIFIER,
        )

    def _subgraph(self, part: _Part) -> Node:
        table = self.graphs[part.index]
        tensors = table.tables(schema.SubGraph.TENSORS)
        operators = table.tables(schema.SubGraph.OPERATORS)
        new = {old: number for number, old in enumerate(part.tensors)} | {-1: -1}
        return made(
            {
                schema.SubGraph.TENSORS: [self._tensor(tensors[i]) for i in part.tensors],
                schema.SubGraph.INPUTS: numbers([new[i] for i in part.inputs]),
                schema.SubGraph.OUTPUTS: numbers([new[i] for i in part.outputs]),
                schema.SubGraph.OPERATORS: [
                    self._operator(operators[i], self.model.subgraphs[part.index].operators[i], new)
                    for i in part.operators
                ],
                schema.SubGraph.NAME: vector(table, schema.SubGraph.NAME),
            }
        )

    def _tensor(self, table: Table) -> Node:
        if table.number(schema.Tensor.EXTERNAL_BUFFER, packer.uint32):
            raise _cannot("keeps weights in another file")
        quantization = table.table(schema.Tensor.QUANTIZATION)
        details = schema.QuantizationParameters.DETAILS_TYPE
        if quantization is not None and quantization.number(details, packer.uint8) > 1:
            raise _cannot("quantizes weights block by block")
        sparsity = table.table(schema.Tensor.SPARSITY)
        variants = table.tables(schema.Tensor.VARIANT_TENSORS)
        buffer = self._buffer(table.number(schema.Tensor.BUFFER, packer.uint32))
        fields: dict[int, Field | None] = {
            schema.Tensor.SHAPE: vector(table, schema.Tensor.SHAPE, 4),
            schema.Tensor.TYPE: (packer.int8, table.number(schema.Tensor.TYPE, packer.int8)),
            schema.Tensor.BUFFER: (packer.uint32, buffer),
            schema.Tensor.NAME: vector(table, schema.Tensor.NAME),
            schema.Tensor.QUANTIZATION: copied(quantization, QUANTIZATION)
            if quantization
            else None,
            schema.Tensor.SPARSITY: copied(sparsity, SPARSITY) if sparsity else None,
            schema.Tensor.SHAPE_SIGNATURE: vector(table, schema.Tensor.SHAPE_SIGNATURE, 4),
            schema.Tensor.VARIANT_TENSORS: [copied(item, VARIANT) for item in variants] or None,
        }
        for flag in (schema.Tensor.IS_VARIABLE, schema.Tensor.HAS_RANK):
            fields[flag] = (packer.uint8, table.number(flag, packer.uint8))
        return made(fields)

    def _operator(self, table: Table, operator: Operator, new: Mapping[int, int]) -> Node:
        if table.number(schema.Operator.LARGE_CUSTOM_OPTIONS_OFFSET, packer.uint64):
            raise _cannot("keeps options of an operator outside its tables")
        code = table.number(schema.Operator.OPCODE_INDEX, packer.uint32)
        between = [new[i] for i in operator.intermediates]
        fields: dict[int, Field | None] = {
            schema.Operator.OPCODE_INDEX: (
                packer.uint32,
                self.codes.setdefault(code, len(self.codes)),
            ),
            schema.Operator.INPUTS: numbers([new[i] for i in operator.inputs]),
            schema.Operator.OUTPUTS: numbers([new[i] for i in operator.outputs]),
            schema.Operator.CUSTOM_OPTIONS: vector(table, schema.Operator.CUSTOM_OPTIONS),
            schema.Operator.MUTATING_VARIABLE_INPUTS: vector(
                table, schema.Operator.MUTATING_VARIABLE_INPUTS
            ),
            schema.Operator.INTERMEDIATES: numbers(between) if between else None,
        }
        for number, choice in OPTIONS.items():
            fields[choice.by] = (packer.uint8, table.number(choice.by, packer.uint8))
            fields[number] = self._options(table, number, choice, operator)
        return made(fields)

    def _options(
        self, table: Table, number: int, choice: Choice, operator: Operator
    ) -> Node | None:
        options = table.table(number)
        if options is None:
            return None
        kind = table.number(choice.by, packer.uint8)
        if kind not in choice.tables:
            raise _cannot(f"has an operator {operator.name} of a newer format")
        if operator.name in schema.CALLED_SUBGRAPH_LISTS:
            raise _cannot(f"chooses subgraphs with {operator.name}")
        node = copied(options, choice.tables[kind])
        for called in schema.CALLED_SUBGRAPHS.get(operator.name, ()):
            at = options.slot(called)
            if at:
                index = self.subgraphs[options.number(called, packer.int32)]
                packer.int32.pack_into(node.inline, at - options.at, index)
        return node

    def _buffer(self, index: int) -> int:
        return self.buffers.setdefault(index, len(self.buffers))

    def _buffers(self) -> list[Node]:
        """The kept buffers in their new order, then those that are made anew."""
        tables = self.root.tables(schema.Model.BUFFERS)
        nodes = [made({})]
        for index in list(self.buffers)[1:]:
            held = tables[index].blob(schema.Buffer.DATA)
            if tables[index].number(schema.Buffer.OFFSET, packer.uint64) > 1:
                raise _cannot("keeps weights behind its tables")
            data = b"" if held is None else tables[index].bytes_at(held.start, held.stop)
            nodes.append(_data(data) if held is not None else made({}))
        return nodes + [_data(data) for data in self.added]

    def _signatures(self) -> list[Node]:
        main = self.parts[0]
        names = unique_names(
            [t.name or f"tensor_{t.index}" for t in self.model.subgraphs[main.index].tensors]
        )
        nodes = []
        for signature in self.model.signatures:
            if signature.subgraph not in self.subgraphs:
                continue
            inputs, outputs = signature.inputs, signature.outputs
            part = next(part for part in self.parts if part.index == signature.subgraph)
            if part is main:
                called = {index: name for name, index in outputs}
                inputs = tuple(item for item in inputs if item[1] in main.inputs)
                outputs = tuple((called.get(i, names[i]), i) for i in main.outputs)
            nodes.append(
                made(
                    {
                        schema.SignatureDef.INPUTS: _maps(part, inputs),
                        schema.SignatureDef.OUTPUTS: _maps(part, outputs),
                        schema.SignatureDef.SIGNATURE_KEY: text(signature.key),
                        schema.SignatureDef.SUBGRAPH_INDEX: (
                            packer.uint32,
                            self.subgraphs[signature.subgraph],
                        ),
                    }
                )
            )
        return nodes

    def _metadata(self) -> list[Node]:
        nodes = []
        layout = None
        for table in self.root.tables(schema.Model.METADATA):
            name = table.text(schema.Metadata.NAME) or ""
            if name in _REFERS_TO_TENSORS:
                raise _cannot("has compressed weights")
            if name == OFFLINE_PLAN:
                layout = self._layout()
            elif name not in _DESCRIBES_OUTPUTS:
                buffer = self._buffer(table.number(schema.Metadata.BUFFER, packer.uint32))
                nodes.append(_metadata(name, buffer))
        if layout is not None:
            # Behind all that are copied.
            nodes.append(_metadata(OFFLINE_PLAN, len(self.buffers)))
            self.added.append(layout)
        return nodes

    def _layout(self) -> bytes:
        """The ready memory layout of the kept tensors; the outputs may lie anywhere."""
        offsets = layout_of(self.model)
        kept: list[int | None] = []
        for part in self.parts:
            free = set(part.outputs) if part is self.parts[0] else set()
            kept += [None if i in free else offsets[part.index][i] for i in part.tensors]
        return layout_bytes(len(self.parts), kept)


def _data(data: bytes) -> Node:
    return made({schema.Buffer.DATA: Vector(data, len(data), _ALIGNMENT)})


def _metadata(name: str, buffer: int) -> Node:
    return made({schema.Metadata.NAME: text(name), schema.Metadata.BUFFER: (packer.uint32, buffer)})


def _maps(part: _Part, pairs: Sequence[tuple[str, int]]) -> list[Node]:
    names = unique_names([name for name, _ in pairs])
    return [
        made(
            {
                schema.TensorMap.NAME: text(name),
                schema.TensorMap.TENSOR_INDEX: (packer.uint32, part.tensors.index(index)),
            }
        )
        for name, (_, index) in zip(names, pairs, strict=True)
    ]


def _cannot(why: str) -> PlanError:
    return PlanError(
        f"this model cannot be cut: it {why}",
        hint="add the tensors as outputs instead; the model stays whole then",
    )


__all__ = ["cut"]
