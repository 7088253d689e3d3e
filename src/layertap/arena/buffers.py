"""Buffers of the non-persistent section, and where a planner puts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALIGNMENT = 16
"""Bytes to which buffers and the arena itself are aligned. Source: tflite-micro,
tensorflow/lite/micro/micro_arena_constants.h."""

UNUSED = -1
"""The scope of buffers that nothing reads or writes; they are given room all the same."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """A wish for memory.

    ``size``: bytes, a multiple of ALIGNMENT and above 0. ``first`` and ``last``: the scopes in
    which it is alive, both included, UNUSED for a buffer that never is. ``fixed``: the offset that
    a layout inside the model gives it, bytes; None where the planner chooses.
    """

    size: int
    first: int
    last: int
    fixed: int | None = None

    def meets(self, other: Buffer) -> bool:
        """Whether both are alive at some time."""
        return self.first <= other.last and other.first <= self.last


def aligned(size: int, alignment: int = ALIGNMENT) -> int:
    """``size`` rounded up to a multiple of ``alignment``."""
    return -(-size // alignment) * alignment


def extent(buffers: Sequence[Buffer], offsets: Sequence[int]) -> int:
    """Bytes from the start of the arena to the end of its last buffer."""
    return max((o + b.size for b, o in zip(buffers, offsets, strict=True)), default=0)


def live_bytes(buffers: Sequence[Buffer]) -> dict[int, int]:
    """Bytes alive in each scope where that changes, in order of the scopes."""
    changes: dict[int, int] = {}
    for buffer in buffers:
        changes[buffer.first] = changes.get(buffer.first, 0) + buffer.size
        changes[buffer.last + 1] = changes.get(buffer.last + 1, 0) - buffer.size
    scopes = sorted(changes)
    sums = np.cumsum([changes[scope] for scope in scopes]).tolist()
    return dict(zip(scopes, sums, strict=True))


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """Bytes that every layout needs: the most that is alive at one time."""
    return max(live_bytes(buffers).values(), default=0)


def collisions(buffers: Sequence[Buffer], offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of buffers, by position, that are alive at one time and share bytes."""
    placed = sorted(range(len(buffers)), key=lambda i: offsets[i])
    found: list[tuple[int, int]] = []
    for rank, i in enumerate(placed):
        end = offsets[i] + buffers[i].size
        for j in placed[rank + 1 :]:
            if offsets[j] >= end:
                break
            if buffers[i].meets(buffers[j]):
                found.append((min(i, j), max(i, j)))
    return found


__all__ = [
    "ALIGNMENT",
    "UNUSED",
    "Buffer",
    "aligned",
    "collisions",
    "extent",
    "live_bytes",
    "lower_bound",
]
