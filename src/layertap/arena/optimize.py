"""A layout of a model's activations that needs less of the arena than the greedy planner's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from layertap.arena import solver
from layertap.arena.buffers import Buffer
from layertap.arena.inplace import Place, places
from layertap.arena.kernels import known
from layertap.arena.memory_map import MemoryMap, Placement, Shared, Sharing
from layertap.arena.packing import (
    MOST_PAIRS,
    Packed,
    Problem,
    Reuse,
    count_pairs,
    first_fit,
    measured,
    pack,
)
from layertap.arena.shared import shared_at
from layertap.arena.target import REFERENCE
from layertap.tflite.model import TfliteModel

_WORK = 100_000
"""Buffers placed in all while orders are tried; a few seconds."""

_EFFORT = 5.0
_PRUNED = 20_000
"""Buffers times shared pairs up to which each pair is tried to be done without."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the activations lie, and how good that is.

    ``offsets``: one per tensor, all subgraphs in order, in bytes; None where the interpreter's
    planner chooses. ``head``: bytes of the non-persistent section with it. ``greedy``: the same as
    the interpreter's planner lays it out by itself. ``bound``: what no layout can go below, with
    results in place where that is allowed; ``bound_apart``: the same without any.
    ``solver``: ``"greedy"``, ``"first fit"`` or ``"cp-sat"``, whatever found it.
    """

    offsets: tuple[int | None, ...]
    head: int
    greedy: int
    bound: int
    bound_apart: int
    shared: tuple[Shared, ...]
    solver: str

    @property
    def optimal(self) -> bool:
        """Whether it is proven that no layout is smaller."""
        return self.head == self.bound

    @property
    def gap(self) -> float:
        """By how much of itself the head is above the bound: 0 to 1."""
        return (self.head - self.bound) / self.head if self.head else 0.0


def best_layout(
    model: TfliteModel,
    memory: MemoryMap,
    *,
    sharing: Sharing = "in-place",
    kernels: str = REFERENCE,
) -> Layout:
    """The lowest layout found for ``model``, whose map without any ready layout is ``memory``.

    It is never above the greedy planner's, the same for the same model, and shares bytes between
    operand and result only where that makes it lower. Operators for which ``kernels`` has a kernel
    of its own share nothing.
    """
    planned = [placement for placement in memory.placements if placement.home == "arena"]
    buffers = [Buffer(p.size, *(p.alive or (0, 0))) for p in planned]
    online = _online(model, planned)
    if count_pairs(buffers) > MOST_PAIRS:
        return _unchanged(model, memory)
    apart = _best(Problem(buffers, (), online))
    allowed = _allowed(model, memory, planned, buffers, sharing, kernels)
    shared = _best(Problem(buffers, [p.reuse for p in allowed], online)) if allowed else apart
    found, used = apart, list[Place]()
    if shared.head < apart.head:
        found, used = _pruned(buffers, allowed, online, shared)
    return Layout(
        _entries(model, planned, found, online),
        found.head,
        memory.arena.head,
        shared.bound,
        apart.bound,
        tuple(_named(memory, place, found) for place in used),
        found.solver,
    )


def _allowed(
    model: TfliteModel,
    memory: MemoryMap,
    planned: Sequence[Placement],
    buffers: Sequence[Buffer],
    sharing: Sharing,
    kernels: str,
) -> list[Place]:
    if sharing == "none":
        return []
    positions = {(p.subgraph, p.index): n for n, p in enumerate(planned) if p.index is not None}
    overlapping = sharing == "overlapping"
    found = places(model, memory.steps, positions, buffers, overlapping=overlapping)
    return [place for place in found if known(place.op, kernels)]


def _online(model: TfliteModel, planned: Sequence[Placement]) -> frozenset[int]:
    """Positions that a ready layout cannot or must not fix: scratch buffers have no entry, and
    MicroAllocator::AllocateVariables looks up the variables of every subgraph by their index
    within it, so that these entries must be -1 for them to be allocated at all."""
    looked_up = {
        tensor.index for graph in model.subgraphs[1:] for tensor in graph.tensors if tensor.variable
    }
    starts = _starts(model)
    return frozenset(
        position
        for position, placement in enumerate(planned)
        if placement.index is None or starts[placement.subgraph] + placement.index in looked_up
    )


def _best(problem: Problem) -> Packed:
    tries = _WORK // max(1, len(problem.buffers))
    packed = pack(problem, tries=min(400, tries))
    pairs = sum(len(others) for others in problem.neighbours) // 2
    if packed.optimal or pairs > solver.MOST_PAIRS or not solver.installed():
        return packed
    return solver.improved(problem, packed, effort=_EFFORT)


def _pruned(
    buffers: Sequence[Buffer], allowed: Sequence[Place], online: frozenset[int], best: Packed
) -> tuple[Packed, list[Place]]:
    """``best``, or a layout as low as that in which fewer operators share, and those that do."""
    used = _of(allowed, Problem(buffers, [p.reuse for p in allowed]).shared(best.offsets))
    for place in list(used) if len(used) * len(buffers) <= _PRUNED else ():
        rest = [other for other in used if other is not place]
        problem = Problem(buffers, [other.reuse for other in rest], online)
        order = sorted(range(len(buffers)), key=lambda i: best.offsets[i])
        again = measured(problem, first_fit(problem, order), best.bound, best.solver)
        fewer = again if again.head <= best.head else pack(problem, tries=20)
        if fewer.head <= best.head:
            used = _of(rest, problem.shared(fewer.offsets))
            best = Packed(fewer.offsets, fewer.head, best.bound, best.solver)
    return best, used


def _of(allowed: Iterable[Place], reuses: Sequence[Reuse]) -> list[Place]:
    return [place for place in allowed if place.reuse in reuses]


def _entries(
    model: TfliteModel, planned: Sequence[Placement], found: Packed, online: frozenset[int]
) -> tuple[int | None, ...]:
    starts = _starts(model)
    entries: list[int | None] = [None] * starts[-1]
    for position, placement in enumerate(planned):
        if position not in online and placement.index is not None:
            entries[starts[placement.subgraph] + placement.index] = found.offsets[position]
    return tuple(entries)


def _starts(model: TfliteModel) -> list[int]:
    """The number of tensors in the subgraphs before each one, and in all."""
    starts = [0]
    for graph in model.subgraphs:
        starts.append(starts[-1] + len(graph.tensors))
    return starts


def _unchanged(model: TfliteModel, memory: MemoryMap) -> Layout:
    arena = memory.arena
    entries = (None,) * _starts(model)[-1]
    bound = arena.lower_bound
    return Layout(entries, arena.head, arena.head, bound, bound, (), "greedy")


def _named(memory: MemoryMap, place: Place, found: Packed) -> Shared:
    names = {
        p.index: p.name
        for p in memory.placements
        if p.subgraph == place.subgraph and p.index is not None
    }
    operand, result = place.reuse.input, place.reuse.output
    return shared_at(place, names, found.offsets[operand] - found.offsets[result])


__all__ = ["Layout", "best_layout"]
