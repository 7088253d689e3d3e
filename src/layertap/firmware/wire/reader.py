"""The fields of a message, read one after the other."""

from __future__ import annotations

import struct

from layertap.errors import WireError
from layertap.firmware.wire.frames import read_varint


class Reader:
    """A cursor over the content of a frame; every method raises WireError where it ends early."""

    def __init__(self, content: bytes, at: int = 0) -> None:
        self._content = content
        self._at = at

    def take(self, count: int) -> bytes:
        found = self._content[self._at : self._at + count]
        if len(found) < count:
            raise WireError(
                f"a message ends after {len(self._content)} bytes, within a field",
                hint="the firmware writes another format than docs/wire-format.md describes",
            )
        self._at += count
        return found

    def u8(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def f32(self) -> float:
        return float(struct.unpack("<f", self.take(4))[0])

    def varint(self) -> int:
        value, self._at = read_varint(self._content, self._at)
        return value

    def rest(self) -> bytes:
        return self.take(len(self._content) - self._at)

    def end(self) -> None:
        """Raises WireError unless all bytes are read."""
        if self._at != len(self._content):
            raise WireError(
                f"a message has {len(self._content) - self._at} bytes behind its last field",
                hint="the firmware writes another format than docs/wire-format.md describes",
            )


__all__ = ["Reader"]
