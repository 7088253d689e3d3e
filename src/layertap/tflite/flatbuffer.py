"""FlatBuffers tables read with every offset verified before it is followed.

The generated classes and the ``flatbuffers`` runtime trust the file; a damaged one makes them read
anywhere. Here a bad offset is a CorruptModel. Format: https://flatbuffers.dev/internals/
"""

from __future__ import annotations

from struct import Struct
from typing import Any

import numpy as np
from flatbuffers import packer

from layertap.core.dtypes import Array
from layertap.errors import CorruptModel

MAX_TABLES = 1 << 19
"""Tables one file may list; far above any real model, and it bounds what a small file costs."""

_SHARING = 2
"""Vectors may be shared between tables, and tables between lists; reading more than this many times
the file is a trap."""


def damaged(what: str) -> CorruptModel:
    """The error for a file that breaks its format."""
    return CorruptModel(
        f"the .tflite file is damaged: {what}", hint="copy, download or convert the model again"
    )


class Flatbuffer:
    """The bytes of one file, and how much of them was read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._tables = 0
        self._budget = self._table_budget = _SHARING * len(data) + (1 << 16)

    def root(self) -> Table:
        return Table(self, self.follow(0))

    def read(self, kind: Struct, at: int) -> Any:
        """The number packed as ``kind`` at byte ``at``."""
        if at < 0 or at + kind.size > len(self.data):
            raise damaged(f"something lies at byte {at:,}, outside the file")
        return kind.unpack_from(self.data, at)[0]

    def follow(self, at: int) -> int:
        """Where the offset at byte ``at`` points."""
        target = at + int(self.read(packer.uoffset, at))
        if target == at or target + 4 > len(self.data):
            raise damaged(f"the offset at byte {at:,} leads to byte {target:,}, where nothing is")
        return target

    def span(self, at: int, itemsize: int) -> tuple[int, int]:
        """Position of the first element and number of elements of the vector at ``at``."""
        count = int(self.read(packer.uoffset, at))
        if at + 4 + count * itemsize > len(self.data):
            raise damaged(f"the vector at byte {at:,} has {count:,} elements, past the end")
        return at + 4, count

    def charge(self, size: int) -> None:
        """Count ``size`` bytes as read; a file that makes us read it over and over is refused."""
        self._budget -= size
        if self._budget < 0:
            raise damaged("it refers to the same bytes again and again")

    def charge_tables(self, count: int) -> None:
        self._tables += count
        if self._tables > MAX_TABLES:
            raise damaged(f"it lists more than {MAX_TABLES:,} tables")

    def charge_table(self, size: int) -> None:
        """Count a table of ``size`` bytes as listed."""
        self._table_budget -= size
        if self._table_budget < 0:
            raise damaged("it lists the same tables again and again")


class Table:
    """One table; its fields are read by their number in the schema."""

    __slots__ = ("_end", "_fields", "_file", "_vtable", "at")

    def __init__(self, file: Flatbuffer, at: int) -> None:
        self._file, self.at = file, at
        self._vtable = at - int(file.read(packer.soffset, at))
        self._fields = (int(file.read(packer.voffset, self._vtable)) - 4) // 2
        self._end = at + int(file.read(packer.voffset, self._vtable + 2))
        if self._fields < 0 or self._end < at + 4 or self._end > len(file.data):
            raise damaged(f"the table at byte {at:,} has an impossible layout")

    def slot(self, field: int, width: int = 4) -> int:
        """Byte at which ``field`` (``width`` bytes) is stored, 0 when it is absent."""
        if field >= self._fields:
            return 0
        offset = int(self._file.read(packer.voffset, self._vtable + 4 + 2 * field))
        if offset == 0:
            return 0
        if offset < 4 or self.at + offset + width > self._end:
            raise damaged(f"the table at byte {self.at:,} stores a field outside itself")
        return self.at + offset

    def number(self, field: int, kind: Struct, default: int = 0) -> int:
        at = self.slot(field, kind.size)
        return int(self._file.read(kind, at)) if at else default

    def table(self, field: int) -> Table | None:
        at = self.slot(field)
        return Table(self._file, self._file.follow(at)) if at else None

    def tables(self, field: int) -> list[Table]:
        """The tables of a vector, empty when the field is absent."""
        at = self.slot(field)
        if not at:
            return []
        start, count = self._file.span(self._file.follow(at), 4)
        self._file.charge_tables(count)
        self._file.charge(4 * count)
        return [self._listed(start + 4 * i) for i in range(count)]

    def _listed(self, at: int) -> Table:
        table = Table(self._file, self._file.follow(at))
        self._file.charge_table(table._end - table.at)
        return table

    def numbers(self, field: int, dtype: str) -> Array | None:
        """A vector of numbers, None when the field is absent; a read-only view of the file."""
        at = self.slot(field)
        if not at:
            return None
        kind = np.dtype(dtype)
        start, count = self._file.span(self._file.follow(at), kind.itemsize)
        self._file.charge(count * kind.itemsize)
        return np.frombuffer(self._file.data, kind, count, start)

    def count(self, field: int, itemsize: int) -> int:
        """Elements of a vector of such items, 0 when the field is absent."""
        at = self.slot(field)
        return self._file.span(self._file.follow(at), itemsize)[1] if at else 0

    def text(self, field: int) -> str | None:
        """A string, None when the field is absent; bytes that are not UTF-8 are escaped."""
        at = self.slot(field)
        if not at:
            return None
        start, count = self._file.span(self._file.follow(at), 1)
        self._file.charge(count)
        return self._file.data[start : start + count].decode("utf-8", "backslashreplace")

    def blob(self, field: int, itemsize: int = 1) -> range | None:
        """The byte range of a vector of such items, None when the field is absent."""
        at = self.slot(field)
        if not at:
            return None
        start, count = self._file.span(self._file.follow(at), itemsize)
        return range(start, start + count * itemsize)

    def bytes_at(self, start: int, stop: int) -> bytes:
        """Bytes of the file, counted as read."""
        self._file.charge(stop - start)
        return self._file.data[start:stop]

    def parts(self) -> tuple[bytes, bytes]:
        """The table as it is stored: the list of its fields' places, and the fields."""
        places = self._file.data[self._vtable : self._vtable + 4 + 2 * self._fields]
        return places, self.bytes_at(self.at, self._end)


__all__ = ["MAX_TABLES", "Flatbuffer", "Table", "damaged"]
