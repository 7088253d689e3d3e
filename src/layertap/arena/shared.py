"""Tensors that lie over one another while both are needed, told from a layout's offsets alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from layertap.arena.buffers import UNUSED, Buffer
from layertap.arena.inplace import Place, places
from layertap.arena.kernels import VENDORS
from layertap.arena.lifetimes import Step
from layertap.arena.memory_map import MemoryMap, Overlaps, Placement, Shared
from layertap.arena.packing import MOST_PAIRS, Problem, count_pairs
from layertap.arena.target import REFERENCE
from layertap.errors import PlanError
from layertap.tflite.model import TfliteModel
from layertap.tflite.schema import OPERATORS


def shared_at(place: Place, names: Mapping[int, str], distance: int) -> Shared:
    """The operator of ``place`` with its result at so many bytes below its operand; ``names`` are
    those of the tensors of its subgraph."""
    vendors = tuple(library for library, ops in VENDORS.items() if place.op in ops)
    return Shared(
        place.subgraph,
        place.operator,
        place.op,
        names[place.input],
        names[place.output],
        distance,
        vendors,
    )


def overlaps(
    model: TfliteModel, placements: Sequence[Placement], steps: Sequence[Step]
) -> Overlaps:
    """What lies over what at the offsets of ``placements``, of which ``model`` itself gives those
    of tensors. What a custom operator uses is left to whoever laid it out."""
    placed = [p for p in placements if p.home == "arena" and p.index is not None and _lives(p)]
    buffers = [Buffer(p.bytes, *(p.alive or (0, 0))) for p in placed]
    if count_pairs(buffers) > MOST_PAIRS:
        return Overlaps(checked=False)
    positions = {(p.subgraph, p.index): n for n, p in enumerate(placed) if p.index is not None}
    allowed = places(model, steps, positions, buffers, overlapping=True)
    offsets = [p.offset or 0 for p in placed]
    problem = Problem(buffers, [place.reuse for place in allowed])
    own = _of_custom_operators(model)
    clashes = (
        (placed[i], placed[j])
        for i, j in problem.clashes(offsets)
        if not own & {(placed[i].subgraph, placed[i].index), (placed[j].subgraph, placed[j].index)}
    )
    used = problem.shared(offsets)
    return Overlaps(
        tuple(_shared(place, placed, offsets) for place in allowed if place.reuse in used),
        tuple((one.name, other.name) for one, other in clashes),
    )


_ANEW = (
    "lay it out anew: layertap memory MODEL --optimize -o NEW; a model for an accelerator: with "
    "the compiler that made it"
)


def check_layout(memory: MemoryMap, kernels: Iterable[str] = (REFERENCE,)) -> None:
    """Raise PlanError where the layout that a file brings along is not known to be right with one
    of these libraries of kernels."""
    found = memory.overlaps
    if not found.checked:
        raise PlanError(
            "the layout in this model cannot be checked: too many tensors are needed at one time",
            hint=_ANEW,
        )
    if found.clashes:
        one, other = found.clashes[0]
        raise PlanError(
            f"the layout in this model lets {one!r} and {other!r} share bytes while both are "
            "needed, which no kernels are known to bear",
            hint=_ANEW,
        )
    for library in kernels:
        _check_shared([shared for shared in found.shared if library in shared.vendors], library)


def _check_shared(wrong: Sequence[Shared], library: str) -> None:
    if not wrong:
        return
    first = wrong[0]
    raise PlanError(
        f"the layout in this model is right with the reference kernels and not known to be with "
        f"those of {library}: it lays the result of {len(wrong)} operators over what they read, "
        f"first {first.output!r} ({first.op}) over {first.input!r}",
        hint=f"layertap memory MODEL --optimize --kernels {library} -o NEW lays it out for them, "
        "--share none for any kernels; say --kernels reference if your build has those",
    )


def _lives(placement: Placement) -> bool:
    return placement.alive is not None and placement.alive[1] != UNUSED and placement.bytes > 0


def _of_custom_operators(model: TfliteModel) -> set[tuple[int, int | None]]:
    return {
        (graph.index, i)
        for graph in model.subgraphs
        for operator in graph.operators
        if operator.name not in OPERATORS
        for i in (*operator.inputs, *operator.outputs)
    }


def _shared(place: Place, placed: Sequence[Placement], offsets: Sequence[int]) -> Shared:
    operand, result = place.reuse.input, place.reuse.output
    names = {place.input: placed[operand].name, place.output: placed[result].name}
    return shared_at(place, names, offsets[operand] - offsets[result])


__all__ = ["check_layout", "overlaps", "shared_at"]
