"""Memory maps written by hand, small enough to be known by heart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from layertap.arena.buffers import Buffer, aligned, live_bytes
from layertap.arena.lifetimes import Step
from layertap.arena.memory_map import (
    Arena,
    Flash,
    LayerFlash,
    MemoryMap,
    Peak,
    Placement,
    Reason,
    Section,
)

MakeMap = Callable[..., MemoryMap]

Row = tuple[str, int, int, int, int]
"""A name, bytes, the first and the last scope, the offset."""


@pytest.fixture
def make_map() -> MakeMap:
    """A chain of operators ``op`` over buffers that are given row by row; the buffer of row i is
    the output of operator i - 1, that of row 0 the input."""

    def make(
        rows: Sequence[Row],
        *,
        op: str = "CONV_2D",
        scratch: Sequence[tuple[int, int, int]] = (),
        weights: Sequence[tuple[str, int]] = (),
        tail: int = 1000,
        minimum: int | None = None,
        unknown: tuple[str, ...] = (),
        target: str = "cortex-m",
        dtype: str = "int8",
    ) -> MemoryMap:
        placements = [
            Placement(
                name, 0, i, i - 1 if i else None, op if i else "INPUT", "arena", dtype,
                (1, size), size, aligned(size), offset, (first, last),
            )
            for i, (name, size, first, last, offset) in enumerate(rows)
        ]  # fmt: skip
        placements += [
            Placement(
                f"{name}/weights", 0, len(rows) + i, None, "CONSTANT", "flash", dtype,
                (size,), size, size, 1000 + i,
            )
            for i, (name, size) in enumerate(weights)
        ]  # fmt: skip
        placements += [
            Placement(
                f"{rows[of + 1][0]}/scratch:0", 0, None, of, op, "arena", "", (), size,
                aligned(size), offset, (of + 1, of + 1),
            )
            for of, size, offset in scratch
        ]  # fmt: skip
        return _map(placements, rows, weights, op, tail, minimum, unknown, target)

    return make


def _map(
    placements: list[Placement],
    rows: Sequence[Row],
    weights: Sequence[tuple[str, int]],
    op: str,
    tail: int,
    minimum: int | None,
    unknown: tuple[str, ...],
    target: str,
) -> MemoryMap:
    placed = [p for p in placements if p.home == "arena"]
    head = max((p.size + (p.offset or 0) for p in placed), default=0)
    alive = live_bytes([Buffer(p.size, *p.alive) for p in placed if p.alive])
    bound = max(alive.values(), default=0)
    scope = next((s for s, count in alive.items() if count == bound), 0)
    last = max((p.alive[1] for p in placed if p.alive), default=-1)
    steps = [Step(i, 0, i - 1 if i else None) for i in range(max(len(rows), last + 1))]
    names = [p.name for p in placed if p.alive and p.alive[0] <= scope <= p.alive[1]]
    peak = Peak(steps[scope], op if scope else "INPUT", bound, tuple(names)) if steps else None
    used = aligned(head + tail)
    reason: Reason = "buffers" if minimum is None else "planner"
    arena = Arena(
        head, tail, minimum or used, reason, bound, peak,
        (Section("tensors", len(rows), 600), Section("kernels", 2, tail - 600)),
        unknown,
    )  # fmt: skip
    layers = tuple(LayerFlash(name, op, size, 0) for name, size in weights)
    total = sum(size for _, size in weights)
    flash = Flash(total + 500, total, layers)
    return MemoryMap(target, "test", arena, flash, tuple(placements), tuple(steps))


@pytest.fixture
def chain(make_map: MakeMap) -> MemoryMap:
    """Three operators; b and c are alive at the peak, operator 1."""
    return make_map(
        [("a", 100, 0, 1, 0), ("b", 400, 1, 2, 112), ("c", 800, 2, 3, 512), ("d", 16, 3, 3, 0)],
        weights=[("b", 300), ("c", 700)],
    )
