"""What the places of a model are called: operators, steps, tensors."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from layertap.arena.memory_map import MemoryMap, Placement, Reason

DURING: Mapping[Reason, str] = MappingProxyType(
    {
        "planner": "while the planner works",
        "preparation": "while the kernels are prepared",
    }
)
"""When an arena must be larger than what it holds in the end, by what decides the smallest one."""

Site = tuple[int, int]
"""A subgraph and the position of an operator in it."""


def native(placement: Placement) -> str:
    """The index by which selectors know a tensor, empty for scratch buffers."""
    if placement.index is None:
        return ""
    where = f"s{placement.subgraph}/" if placement.subgraph else ""
    return f"{where}#{placement.index}"


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
    return {step.scope: _step(step.subgraph, step.operator, names) for step in memory.steps}


def _step(subgraph: int, operator: int | None, names: Mapping[Site, str]) -> str:
    if operator is None:
        return f"enter s{subgraph}" if subgraph else "input"
    where = f"s{subgraph}/{operator}" if subgraph else f"{operator}"
    return f"{where} {names.get((subgraph, operator), '')}".rstrip()


__all__ = ["DURING", "Site", "native", "operators", "steps"]
