"""Names of tensors and operators as C and C++ can write them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

LONGEST = 60
"""Characters of a name that are kept; converters join the names of what they fused."""


def identifier(name: str) -> str:
    """``name`` in letters, digits and single underscores, in lower case.

    It may begin with a digit or be a keyword: callers put a prefix before it.
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
    return plain[:LONGEST].rstrip("_") or "unnamed"


def identifiers(names: Sequence[str]) -> list[str]:
    """One identifier each, no two alike: repetitions are numbered by their position."""
    made = [identifier(name) for name in names]
    count = Counter(made)
    unique = []
    taken = set(made)
    for position, name in enumerate(made):
        if count[name] > 1:
            name = f"{name}_{position}"
            while name in taken:
                name = f"{name}_{position}"
            taken.add(name)
        unique.append(name)
    return unique


__all__ = ["LONGEST", "identifier", "identifiers"]
