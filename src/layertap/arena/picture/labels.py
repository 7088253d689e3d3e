"""Short words for long names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

TELLING = 12
"""Characters of a name that still tell it from others."""


class Names:
    """Short forms of names that stay telling beside one another."""

    def __init__(self, names: Iterable[str]) -> None:
        self.count = Counter(part for name in names for part in set(_parts(name)))

    def fitted(self, name: str, width: int, number: str = "") -> str:
        """``name`` in ``width`` characters: its end, as long as that has a part which few other
        names have, else the rarest of its parts, or ``number`` where of that too little is left."""
        parts = _parts(name)
        rarest = min(self.count[part] for part in parts)
        for start in range(len(parts)):
            text = "/".join(parts[start:])
            if len(text) <= width and any(self.count[part] == rarest for part in parts[start:]):
                return text
        part = next(part for part in reversed(parts) if self.count[part] == rarest)
        return number if number and width < min(len(part), TELLING) else cut(part, width)


def _parts(name: str) -> list[str]:
    """Converters join the names of all that they fused with semicolons; the first will do."""
    return (name.partition(";")[0] or name).split("/")


def cut(text: str, width: int) -> str:
    """``text`` in ``width`` characters, its middle left out where it is longer."""
    if len(text) <= width:
        return text
    tail = max(width - 1, 0) // 2
    return f"{text[: max(width - 1 - tail, 0)]}…{text[len(text) - tail :]}"


__all__ = ["Names", "cut"]
