"""Write FlatBuffers tables again: some made anew, the rest copied as they are.

Tables are written before what they refer to, so that one pass suffices and everything lands on the
alignment it needs. Format: https://flatbuffers.dev/internals/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct, pack, pack_into

from flatbuffers import packer

from layertap.errors import PlanError
from layertap.tflite.flatbuffer import Table, damaged

_LARGEST = 1 << 31
"""Bytes at which FlatBuffers' offsets end."""

_TABLE_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class Vector:
    """Numbers, bytes or text: ``data`` without the leading count."""

    data: bytes
    count: int
    alignment: int = 4


@dataclass(slots=True)
class Node:
    """One table: its two parts, where it must start modulo the alignment of tables, and what its
    offsets refer to, by their position within ``inline``."""

    vtable: bytes
    inline: bytearray
    start: int = 0
    children: list[tuple[int, Part]] = field(default_factory=list)


Part = Vector | Node | list[Node]
Field = tuple[Struct, int] | Part
Spec = Mapping[int, "int | Spec | tuple[Spec] | Choice"]
"""Fields of a table that hold offsets: to a vector of scalars of so many bytes each, to a table,
to a vector of tables, or to the table that another field chooses."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A union; field ``by`` holds the number of the table's type, 0 for none."""

    by: int
    tables: Mapping[int, Spec]


def text(value: str) -> Vector:
    """A string, with the zero byte that the format wants after it."""
    encoded = value.encode()
    return Vector(encoded + b"\0", len(encoded))


def numbers(values: Sequence[int]) -> Vector:
    """A vector of int32."""
    return Vector(pack(f"<{len(values)}i", *values), len(values))


def made(fields: Mapping[int, Field | None]) -> Node:
    """A table of ``fields``; those that are None are absent."""
    given = {number: value for number, value in fields.items() if value is not None}
    slots = [0] * (max(given, default=-1) + 1)
    inline = bytearray(packer.soffset.size)
    children: list[tuple[int, Part]] = []
    # Widest first, so that little is lost to alignment.
    for number, value in sorted(given.items(), key=lambda item: -_width(item[1])):
        inline += bytes(-len(inline) % _width(value))
        slots[number] = len(inline)
        if isinstance(value, tuple):
            inline += value[0].pack(value[1])
        else:
            children.append((len(inline), value))
            inline += bytes(packer.uoffset.size)
    vtable = pack(f"<{2 + len(slots)}H", 4 + 2 * len(slots), len(inline), *slots)
    return Node(vtable, inline, 0, children)


def copied(table: Table, spec: Spec) -> Node:
    """A table and what it refers to, as they are."""
    vtable, inline = table.parts()
    node = Node(vtable, bytearray(inline), table.at % _TABLE_ALIGNMENT)
    for number, kind in spec.items():
        slot = table.slot(number)
        part = _copied_part(table, number, kind) if slot else None
        if part is not None:
            node.children.append((slot - table.at, part))
    return node


def vector(table: Table, number: int, width: int = 1) -> Vector | None:
    """A vector of scalars of ``width`` bytes each, as it is; None when the field is absent."""
    held = table.blob(number, width)
    if held is None:
        return None
    # One byte more for the zero after a string.
    data = table.bytes_at(held.start, held.stop + (width == 1))
    return Vector(data, len(held) // width, max(4, width))


def written(root: Node, identifier: bytes) -> bytes:
    """The file whose root is ``root``. Raises PlanError for more than 2 GB."""
    out = bytearray(8)
    out[4:8] = identifier
    vtables: dict[bytes, int] = {}
    waiting: list[tuple[int, Part]] = [(0, root)]
    while waiting:
        slot, part = waiting.pop()
        at, children = _placed(out, part, vtables)
        packer.uoffset.pack_into(out, slot, at - slot)
        waiting += reversed(children)
        if len(out) >= _LARGEST:
            raise PlanError("the model would be larger than 2 GB", hint="cut it earlier")
    return bytes(out + bytes(-len(out) % 16))


def _width(value: Field) -> int:
    return value[0].size if isinstance(value, tuple) else packer.uoffset.size


def _copied_part(table: Table, number: int, kind: int | Spec | tuple[Spec] | Choice) -> Part | None:
    if isinstance(kind, int):
        return vector(table, number, kind)
    if isinstance(kind, tuple):
        return [copied(item, kind[0]) for item in table.tables(number)]
    if isinstance(kind, Choice):
        chosen = table.number(kind.by, packer.uint8)
        if chosen not in kind.tables:
            raise damaged(f"the table at byte {table.at:,} is of the unknown type {chosen}")
        kind = kind.tables[chosen]
    target = table.table(number)
    return None if target is None else copied(target, kind)


def _placed(
    out: bytearray, part: Part, vtables: dict[bytes, int]
) -> tuple[int, list[tuple[int, Part]]]:
    """Where ``part`` was appended, and what its offsets still wait for."""
    if isinstance(part, Vector):
        out += bytes(-(len(out) + 4) % part.alignment)
        at = len(out)
        out += packer.uoffset.pack(part.count) + part.data
        out += bytes(-len(out) % 4)
        return at, []
    if isinstance(part, list):
        at = len(out)
        out += packer.uoffset.pack(len(part)) + bytes(4 * len(part))
        return at, [(at + 4 + 4 * i, node) for i, node in enumerate(part)]
    if part.vtable not in vtables:
        vtables[part.vtable] = len(out)
        out += part.vtable
    out += bytes((part.start - len(out)) % _TABLE_ALIGNMENT)
    at = len(out)
    pack_into("<i", part.inline, 0, at - vtables[part.vtable])
    out += part.inline
    out += bytes(-len(out) % 4)
    return at, [(at + offset, child) for offset, child in part.children]


__all__ = [
    "Choice",
    "Field",
    "Node",
    "Part",
    "Spec",
    "Vector",
    "copied",
    "made",
    "numbers",
    "text",
    "vector",
    "written",
]
