"""Bytes as the text of a C array."""

from __future__ import annotations

_TEXTS = tuple(f"0x{byte:02x}," for byte in range(256))
_PER_LINE = 16


def array_body(data: bytes) -> str:
    """The elements of an array of unsigned bytes, 16 to a line, without braces."""
    lines = (data[i : i + _PER_LINE] for i in range(0, len(data), _PER_LINE))
    return "\n".join("  " + "".join(map(_TEXTS.__getitem__, line)) for line in lines)


__all__ = ["array_body"]
