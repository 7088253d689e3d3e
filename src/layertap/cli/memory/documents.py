"""A memory map as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from layertap.arena.fitting import Verdict
from layertap.arena.measured import Measured
from layertap.arena.memory_map import MemoryMap, Placement
from layertap.arena.sites import native, operators
from layertap.cli.memory.boards import verdict_json
from layertap.cli.memory.sharing import MOST, sharers


def document(
    path: str,
    memory: MemoryMap,
    verdict: Verdict | None,
    measured: Measured | None,
    written: Sequence[str],
) -> dict[str, Any]:
    """All that is known; ``shares`` of a tensor is null in models with very many buffers."""
    told: dict[str, Any] = {"model": path, **map_json(memory)}
    if verdict is not None:
        told["board"] = verdict_json(verdict)
    if measured is not None:
        told["measured"] = {
            "rows": [asdict(row) for row in measured.rows],
            "notes": list(measured.notes),
        }
    return {**told, "written": list(written)}


def map_json(memory: MemoryMap) -> dict[str, Any]:
    shared = sharers(memory)
    counted = len(memory.planned()) <= MOST
    names = operators(memory)
    return {
        "target": memory.target,
        "version": memory.version,
        "exact": memory.arena.exact,
        "arena": _arena(memory),
        "layout": {"sharing": memory.overlaps.kind, **asdict(memory.overlaps)},
        "flash": asdict(memory.flash),
        "tensors": [_tensor(p, shared.get(p.name, []) if counted else None) for p in memory],
        "steps": [
            {**asdict(step), "op": names.get((step.subgraph, step.operator))}
            if step.operator is not None
            else {**asdict(step), "op": None}
            for step in memory.steps
        ],
    }


def _arena(memory: MemoryMap) -> dict[str, Any]:
    arena = memory.arena
    return {
        "minimum": arena.minimum,
        "used": arena.used,
        "head": arena.head,
        "tail": arena.tail,
        "reason": arena.reason,
        "lower_bound": arena.lower_bound,
        "overhead": arena.head - arena.lower_bound,
        "unknown": list(arena.unknown),
        "peak": None if arena.peak is None else asdict(arena.peak),
        "sections": [asdict(section) for section in arena.sections],
    }


def _tensor(p: Placement, shares: list[str] | None) -> dict[str, Any]:
    return {**asdict(p), "native": native(p) or None, "shares": shares}


__all__ = ["document", "map_json"]
