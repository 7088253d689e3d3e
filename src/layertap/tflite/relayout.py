"""Put a ready memory layout into a .tflite file.

Offsets in a FlatBuffer only lead forward, so what refers to the whole list of buffers must lie in
front of them. So a new root goes before everything else, and the rest of the file stays as it is,
moved as one piece by a multiple of any alignment that buffers may have.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from flatbuffers import packer

from layertap.errors import PlanError
from layertap.tflite import schema
from layertap.tflite.edit import OFFLINE_PLAN
from layertap.tflite.flatbuffer import Flatbuffer, Table
from layertap.tflite.layout import layout_bytes
from layertap.tflite.model import TfliteModel, parse

_PIECE = 64
"""Bytes; the rest of the file moves by a multiple of it."""

LAYOUT_NOTE = "layertap.layout"
"""Metadata about a layout that layertap made: JSON with ``sharing``, which is ``"none"``,
``"in-place"`` or ``"overlapping"``, and ``kernels``, the library that it is right for."""

_NOTE_BYTES = 64
"""Spaces at its end make every note as long, so that it can be replaced where it is."""

_OURS = (OFFLINE_PLAN, LAYOUT_NOTE)
"""Metadata that a new layout takes the place of."""

_OFFSETS = range(schema.Model.OPERATOR_CODES, 10)
"""Fields of the root that are offsets; 8 and 9 are lists of buffers in other files."""


def with_layout(
    data: bytes, offsets: Sequence[int | None], note: Mapping[str, str] | None = None
) -> bytes:
    """``data`` with a memory layout: one arena offset in bytes per tensor, all subgraphs in order,
    None where the interpreter's planner is to choose; and with a ``note`` about it.

    A layout that the file has is replaced, byte for byte where it is. Raises CorruptModel for a
    damaged file and PlanError for a wrong number of offsets, for one that is negative or too
    large, and for a file whose root cannot be written again.
    """
    model = parse(data)
    entries = {OFFLINE_PLAN: _layout(model, offsets)}
    if note is not None:
        entries[LAYOUT_NOTE] = json.dumps(note).encode().ljust(_NOTE_BYTES)
    held = {name: model.metadata[name] for name in _OURS if name in model.metadata}
    if {name: len(at) for name, at in held.items()} != {n: len(e) for n, e in entries.items()}:
        return _Front(data, entries).file()
    if not all(_is_alone(model, name) for name in held):
        return _Front(data, entries).file()
    edited = bytearray(data)
    for name, at in held.items():
        edited[at.start : at.stop] = entries[name]
    return bytes(edited)


def _layout(model: TfliteModel, offsets: Sequence[int | None]) -> bytes:
    count = sum(len(graph.tensors) for graph in model.subgraphs)
    if len(offsets) != count:
        raise PlanError(
            f"the layout has {len(offsets)} offsets for {count} tensors", hint="give one for each"
        )
    wrong = [offset for offset in offsets if offset is not None and not 0 <= offset < 1 << 31]
    if wrong:
        raise PlanError(f"the layout has the offset {wrong[0]}", hint="give 0 to 2 GB")
    return layout_bytes(len(model.subgraphs), offsets)


def _is_alone(model: TfliteModel, name: str) -> bool:
    """Whether nothing else is stored in the bytes of this entry."""
    held = model.metadata[name]
    others = [other for own, other in model.metadata.items() if own != name]
    others += [tensor.data for graph in model.subgraphs for tensor in graph.tensors]
    return not any(other.start < held.stop and held.start < other.stop for other in others)


class _Front:
    """The new beginning of a file: its root, and the lists that have further ``entries``."""

    def __init__(self, data: bytes, entries: Mapping[str, bytes]) -> None:
        self.data, self.entries = data, entries
        self.root = Flatbuffer(data).root()
        self.out = bytearray(8)
        self.out[4:8] = schema.IDENTIFIER
        self.waiting: list[tuple[int, int]] = []
        """Slots in the front, and the byte of the old file that each refers to."""

    def file(self) -> bytes:
        buffers = self._kept(schema.Model.BUFFERS)
        metadata = self._kept(schema.Model.METADATA, but=_OURS)
        root = self._root_table()
        packer.uoffset.pack_into(self.out, 0, root)
        slots = self._vector(root, schema.Model.BUFFERS, buffers)
        places = self._vector(root, schema.Model.METADATA, metadata)
        for n, (name, content) in enumerate(self.entries.items()):
            self._entry_of_buffer(slots[n], content)
            self._entry_of_metadata(places[n], name, len(buffers) + n)
        self.out += bytes(-len(self.out) % _PIECE)
        for slot, target in self.waiting:
            packer.uoffset.pack_into(self.out, slot, target + len(self.out) - slot)
        if len(self.out) + len(self.data) >= 1 << 31:
            raise PlanError("the model would be larger than 2 GB", hint="use a smaller model")
        return bytes(self.out) + self.data

    def _kept(self, number: int, but: Collection[str] = ()) -> list[int]:
        """Where the tables of a list lie, without those of the names ``but``."""
        tables = self.root.tables(number)
        if number == schema.Model.BUFFERS and any(
            table.number(schema.Buffer.OFFSET, packer.uint64) > 1 for table in tables
        ):
            raise PlanError(
                "a layout cannot be put into a file whose weights lie behind the flatbuffer",
                hint="the micro interpreter cannot read such files",
            )
        return [t.at for t in tables if not but or t.text(schema.Metadata.NAME) not in but]

    def _root_table(self) -> int:
        """Write the root again, with room for a list of metadata; return where it is."""
        places, inline = self.root.parts()
        fields = [packer.voffset.unpack_from(places, at)[0] for at in range(4, len(places), 2)]
        if any(fields[_OFFSETS.stop :]):
            raise PlanError(
                "a layout cannot be put into a file of a newer format",
                hint="write the file with an older converter",
            )
        fields += [0] * (schema.Model.METADATA + 1 - len(fields))
        if not fields[schema.Model.METADATA]:
            inline += bytes(-len(inline) % 4)
            fields[schema.Model.METADATA] = len(inline)
            inline += bytes(4)
        vtable = len(self.out)
        for number in (4 + 2 * len(fields), len(inline), *fields):
            self.out += packer.voffset.pack(number)
        self.out += bytes((self.root.at - len(self.out)) % 8)
        at = len(self.out)
        self.out += packer.soffset.pack(at - vtable) + inline[4:]
        self._refer(at, fields)
        return at

    def _refer(self, root: int, fields: Sequence[int]) -> None:
        """Note what the fields of the root at ``root`` refer to in the old file."""
        ours = (schema.Model.BUFFERS, schema.Model.METADATA)
        for number in _OFFSETS:
            slot = self.root.slot(number)
            if slot and number not in ours:
                target = slot + int(packer.uoffset.unpack_from(self.data, slot)[0])
                self.waiting.append((root + fields[number], target))

    def _vector(self, root: int, number: int, kept: Sequence[int]) -> range:
        """Append a list of the tables ``kept`` and those to come, whose slots are returned."""
        self.out += bytes(-len(self.out) % 4)
        at = len(self.out)
        slot = Table(Flatbuffer(bytes(self.out)), root).slot(number)
        packer.uoffset.pack_into(self.out, slot, at - slot)
        count = len(kept) + len(self.entries)
        self.out += packer.uoffset.pack(count)
        self.waiting += [(at + 4 + 4 * i, target) for i, target in enumerate(kept)]
        self.out += bytes(4 * count)
        return range(at + 4 + 4 * len(kept), len(self.out), 4)

    def _entry_of_buffer(self, slot: int, content: bytes) -> None:
        table = self._table(slot, [(schema.Buffer.DATA, 4)])
        # The bytes themselves start after a count of four.
        self.out += bytes(-(len(self.out) + 4) % 16)
        self._point(table[schema.Buffer.DATA])
        self.out += packer.uoffset.pack(len(content)) + content

    def _entry_of_metadata(self, slot: int, name: str, buffer: int) -> None:
        table = self._table(slot, [(schema.Metadata.NAME, 4), (schema.Metadata.BUFFER, 8)])
        packer.uint32.pack_into(self.out, table[schema.Metadata.BUFFER], buffer)
        self._point(table[schema.Metadata.NAME])
        text = name.encode()
        self.out += packer.uoffset.pack(len(text)) + text + b"\0"

    def _table(self, slot: int, fields: Sequence[tuple[int, int]]) -> dict[int, int]:
        """Append a table of four-byte fields at these places; return their slots."""
        self.out += bytes(-len(self.out) % 4)
        vtable, size = len(self.out), 4 + 4 * len(fields)
        for number in (4 + 2 * len(fields), size, *(place for _, place in fields)):
            self.out += packer.voffset.pack(number)
        self.out += bytes(-len(self.out) % 4)
        at = len(self.out)
        packer.uoffset.pack_into(self.out, slot, at - slot)
        self.out += packer.soffset.pack(at - vtable) + bytes(size - 4)
        return {number: at + place for number, place in fields}

    def _point(self, slot: int) -> None:
        """Let the offset at ``slot`` refer to what is appended next."""
        self.out += bytes(-len(self.out) % 4)
        packer.uoffset.pack_into(self.out, slot, len(self.out) - slot)


__all__ = ["LAYOUT_NOTE", "with_layout"]
