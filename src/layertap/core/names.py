"""Names that must differ from those that there are."""

from __future__ import annotations

from collections.abc import Container


def unused(name: str, used: Container[str], mark: str = ".") -> str:
    """``name``, or with ``mark`` and a number, as in ``name.1``, while it is in ``used``."""
    candidate, further = name, 0
    while candidate in used:
        further += 1
        candidate = f"{name}{mark}{further}"
    return candidate


__all__ = ["unused"]
