"""Short words for long names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from layertap.arena.memory_map import MemoryMap, Placement

Site = tuple[int, int]
"""A subgraph and the position of an operator in it."""


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


def native(placement: Placement) -> str:
    """The index by which selectors know a tensor, empty for scratch buffers."""
    if placement.index is None:
        return ""
    where = f"s{placement.subgraph}/" if placement.subgraph else ""
    return f"{where}#{placement.index}"


def _parts(name: str) -> list[str]:
    """Converters join the names of all that they fused with semicolons; the first will do."""
    return (name.partition(";")[0] or name).split("/")


def cut(text: str, width: int) -> str:
    """``text`` in ``width`` characters, its middle left out where it is longer."""
    if len(text) <= width:
        return text
    tail = max(width - 1, 0) // 2
    return f"{text[: max(width - 1 - tail, 0)]}…{text[len(text) - tail :]}"


def operators(memory: MemoryMap) -> dict[Site, str]:
    """What each operator does, ``CONV_2D`` say, where it has an output or a scratch buffer."""
    found: dict[Site, str] = {}
    for placement in memory:
        if placement.operator is not None:
            found.setdefault((placement.subgraph, placement.operator), placement.op)
    return found


def steps(memory: MemoryMap) -> dict[int, str]:
    """What happens in each scope: ``3 CONV_2D``, ``s1/0 ADD``, ``input``, ``enter s1``."""
    names = operators(memory)
    return {
        step.scope: _step(step.subgraph, step.operator, names) for step in memory.steps
    }  # fmt: skip


def _step(subgraph: int, operator: int | None, names: Mapping[Site, str]) -> str:
    if operator is None:
        return f"enter s{subgraph}" if subgraph else "input"
    where = f"s{subgraph}/{operator}" if subgraph else f"{operator}"
    return f"{where} {names.get((subgraph, operator), '')}".rstrip()


__all__ = ["Names", "Site", "cut", "native", "operators", "steps"]
