"""Unique, stable names for tensors whose own names may be empty, repeated or misleading."""

from __future__ import annotations

from collections.abc import Sequence


def unique_names(wanted: Sequence[str]) -> list[str]:
    """``wanted`` with repetitions told apart: ``name``, then ``name@1``, ``name@2``.

    The first tensor of a name keeps it. A suffixed name that some other tensor has as its own is
    passed over, so that a file's own ``name@1`` stays what it is.
    """
    taken = set(wanted)
    seen: set[str] = set()
    count: dict[str, int] = {}
    names = []
    for name in wanted:
        unique = name
        if name in seen:
            number = count.get(name, 0) + 1
            while f"{name}@{number}" in taken:
                number += 1
            count[name] = number
            unique = f"{name}@{number}"
            taken.add(unique)
        seen.add(name)
        names.append(unique)
    return names


__all__ = ["unique_names"]
