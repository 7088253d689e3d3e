"""Who has bytes of the arena in common with whom."""

from __future__ import annotations

import numpy as np

from layertap.arena.memory_map import MemoryMap
from layertap.arena.sites import native

MOST = 2000
"""Buffers up to which all pairs are looked at; offsets and sizes tell it of larger models."""


def sharers(memory: MemoryMap) -> dict[str, list[str]]:
    """For each buffer of the arena the native indices (of scratch buffers the names) of those that
    have its bytes at another time; empty for models of more than MOST buffers."""
    planned = [p for p in memory.planned() if p.size]
    if len(planned) > MOST:
        return {}
    start = np.array([p.offset or 0 for p in planned], np.int64)
    end = start + np.array([p.size for p in planned], np.int64)
    labels = [native(p) or p.name for p in planned]
    found = {}
    for i, placement in enumerate(planned):
        common = np.flatnonzero((start < end[i]) & (end > start[i])).tolist()
        found[placement.name] = [labels[j] for j in common if j != i]
    return found


__all__ = ["sharers"]
