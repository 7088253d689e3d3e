"""Bytes as people write and read them."""

from __future__ import annotations

import re

_FACTORS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_FACTORS |= {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", re.IGNORECASE)


def parse_bytes(size: int | str) -> int:
    """``4096``, ``"512 MiB"``, ``"2GB"`` or ``"96K"`` in bytes; K, M, G are powers of 1000,
    Ki, Mi, Gi powers of 1024. Raises ValueError for anything else."""
    if isinstance(size, int):
        return size
    found = _SIZE.fullmatch(size)
    if found is None or found[2].lower() not in _FACTORS:
        raise ValueError(f"{size!r} is not a size such as 4096, 512MiB or 2GB")
    return int(float(found[1]) * _FACTORS[found[2].lower()])


def format_bytes(count: int) -> str:
    """``count`` in bytes with a binary unit, three significant digits: ``9.00 KiB``."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1000:
            return f"{value:.3g} {unit}"
    return f"{value / 1024:.3g} TiB"
