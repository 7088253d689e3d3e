"""Bytes as people write and read them."""

from __future__ import annotations

import re

_FACTORS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_FACTORS |= {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", re.IGNORECASE)


def parse_bytes(size: float | str, *, binary: bool = False) -> int:
    """``4096``, ``"512 MiB"``, ``"2GB"`` or ``"96K"`` in bytes; K, M, G are powers of 1000, or
    with ``binary`` of 1024, as for the memory of chips; Ki, Mi, Gi always powers of 1024. Raises
    ValueError for anything else."""
    if isinstance(size, int | float):
        return int(size)
    found = _SIZE.fullmatch(size)
    if found is None or found[2].lower() not in _FACTORS:
        example = "4096, 512MiB or 2GB" if not binary else "98304, 96K or 96KiB"
        raise ValueError(f"{size!r} is not a size such as {example}")
    unit = found[2].lower()
    factor = _FACTORS[f"{unit}i" if binary and unit in ("k", "m", "g", "t") else unit]
    return int(float(found[1]) * factor)


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
