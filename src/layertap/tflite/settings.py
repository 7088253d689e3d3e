"""What an operator is told besides its tensors, read when it is asked for."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from flatbuffers import flexbuffers, packer

from layertap.tflite.flatbuffer import Table, damaged

_WIDTHS = {1: packer.int8, 4: packer.int32}

_BROKEN = (ValueError, IndexError, KeyError, TypeError, struct.error)
"""What the parser of FlexBuffers, which trusts its input, stumbles over."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of one operator: ``table`` those of a built-in operator, whose fields go by
    their number in the schema, ``custom`` the bytes of a custom one, a FlexBuffers map."""

    table: Table | None = None
    custom: bytes = b""

    def number(self, field: int, width: int = 4) -> int:
        """A field of ``width`` bytes (1 or 4), 0 where it is absent."""
        return 0 if self.table is None else self.table.number(field, _WIDTHS[width])

    def text(self, field: int) -> str:
        """A field that is a text, empty where it is absent."""
        return "" if self.table is None else self.table.text(field) or ""

    def element(self, index: int) -> int:
        """Entry ``index`` of the map in the order of its keys, as a whole number.

        Raises CorruptModel where there is none.
        """
        return self._entry(lambda root: root.AsVector[index], f"entry {index}")

    def entry(self, key: str) -> int:
        """The entry ``key`` of the map as a whole number.

        Raises CorruptModel where there is none.
        """
        return self._entry(lambda root: root.AsMap[key], f"entry {key!r}")

    def _entry(self, find: Callable[[flexbuffers.Ref], flexbuffers.Ref], what: str) -> int:
        try:
            found = int(find(flexbuffers.GetRoot(self.custom)).AsInt)
        except _BROKEN as error:
            raise damaged(f"the options of a custom operator have no {what}") from error
        if not -(1 << 31) <= found < 1 << 31:
            raise damaged(f"{what} of the options of a custom operator is {found:,}")
        return found


__all__ = ["Settings"]
