"""A prediction beside what a device measured, and made exact by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from layertap.arena.buffers import Buffer, aligned, extent, live_bytes
from layertap.arena.log import Allocations, DeviceLog, PlannedBuffer
from layertap.arena.memory_map import Arena, MemoryMap, Peak, Placement, Reason, Section
from layertap.arena.minimum import Needs
from layertap.arena.sites import operators
from layertap.arena.target import Target
from layertap.errors import LayertapError

INTERFACE = ("inputs", "outputs")
"""Sections that are allocated after the memory was planned."""

PREDICTED = {
    "TfLiteEvalTensor data": "tensors",
    "NodeAndRegistration struct": "operators",
    "TfLiteTensor variable buffer data": "variables",
}
"""The section that is predicted for what the recording allocator counts; its other counts cut
across sections."""

RECORDED = (
    "sizes are those of the recording allocator, which counts its own objects too; the plain one "
    "takes a little less"
)

UNPLACED = "where the scratch buffers lie (PrintMemoryPlan tells)"
UNMEASURED = "the persistent section (PrintAllocations tells)"


@dataclass(frozen=True, slots=True)
class Compared:
    """Bytes, or a number of buffers; ``predicted`` is None where it was unknown."""

    name: str
    predicted: int | None
    measured: int


@dataclass(frozen=True, slots=True)
class Measured:
    """``memory`` has what the device measured in the place of what was predicted, ``rows`` both,
    and ``notes`` what is to be known of the log."""

    memory: MemoryMap
    rows: tuple[Compared, ...]
    notes: tuple[str, ...]


def measured(memory: MemoryMap, log: DeviceLog, target: Target) -> Measured:
    """The prediction for ``target`` corrected by the log of a device that ran the same model.

    Raises LayertapError when the log is of another model.
    """
    if log.allocations is None and not log.plan:
        return Measured(memory, (), log.notes)
    rows: list[Compared] = []
    notes = list(log.notes)
    found = memory
    if log.allocations is not None:
        rows += _sizes(memory, log.allocations)
        notes += [RECORDED, *_other_target(rows, target)]
        found = replace(found, arena=_recorded(found.arena, log.allocations))
    if log.plan:
        placements = _placed(memory, log)
        rows += _offsets(memory, placements)
        found = replace(found, placements=placements, arena=_planned(found, placements))
    if log.allocations is not None:
        found = replace(found, arena=replace(found.arena, head=log.allocations.head))
    minimum, reason = _minimum(memory, found, target)
    unknown = _unknown(memory, log)
    arena = replace(found.arena, minimum=minimum, reason=reason, unknown=unknown)
    found = replace(found, arena=arena, version=f"{memory.version}, measured on a device")
    return Measured(found, tuple(rows), tuple(notes))


def _other_target(rows: Sequence[Compared], target: Target) -> list[str]:
    """The structures of tensors and operators have the same number everywhere, and one size."""
    structures = [row for row in rows if row.name in PREDICTED and "variable" not in row.name]
    if all(row.predicted in (None, row.measured) for row in structures):
        return []
    return [
        f"the device's structures have other sizes than those of {target.name} {target.version}: "
        "is it another target or version?"
    ]


def _minimum(before: MemoryMap, after: MemoryMap, target: Target) -> tuple[int, Reason]:
    """The smallest arena with what was measured: the planner's workspace, the buffers, and what
    the prediction says of the preparation of kernels."""
    arena = after.arena
    interface = sum(s.bytes or 0 for s in before.arena.sections if s.name in INTERFACE)
    used = arena.tail - interface
    scratch = sum(p.index is None for p in after)
    needs = Needs(target)
    needs.scratch(scratch)
    needs.plan_begins(1 + max((p.subgraph for p in after), default=0), len(after.placements), used)
    needs.plan_ends(len(after.planned()), used, arena.head)
    needs.persistent(arena.tail)
    minimum, reason = needs.minimum()
    if before.arena.reason == "preparation":
        prepared = aligned(before.arena.minimum + max(arena.tail - before.arena.tail, 0))
        return max((minimum, reason), (prepared, before.arena.reason), key=lambda need: need[0])
    return minimum, reason


def _unknown(memory: MemoryMap, log: DeviceLog) -> tuple[str, ...]:
    """What the log leaves open of what was unknown."""
    if not memory.arena.unknown:
        return ()
    left = [] if log.plan and log.complete else [UNPLACED]
    return tuple(left + ([] if log.allocations is not None else [UNMEASURED]))


def _placed(memory: MemoryMap, log: DeviceLog) -> tuple[Placement, ...]:
    """Every placement with its offset on the device; scratch buffers as the device has them."""
    tensors = [p for p in memory if p.home == "arena" and p.index is not None]
    _same_model(tensors, log.plan)
    offsets = {p.name: b.offset for p, b in zip(tensors, log.plan, strict=False)}
    kept = [replace(p, offset=offsets.get(p.name, p.offset)) for p in memory if p.index is not None]
    return (*kept, *_scratch(memory, log.plan[len(tensors) :]))


def _same_model(tensors: Sequence[Placement], plan: Sequence[PlannedBuffer]) -> None:
    if len(plan) < len(tensors):
        raise LayertapError(
            f"the log plans {len(plan)} buffers, this model has {len(tensors)} tensors in the "
            "arena",
            hint="the log is cut off, or of another model",
        )
    for number, (tensor, buffer) in enumerate(zip(tensors, plan, strict=False)):
        if (buffer.size, (buffer.first, buffer.last)) != (tensor.size, tensor.alive):
            first, last = tensor.alive or (0, 0)
            raise LayertapError(
                f"buffer {number} of the log has {buffer.size:,} bytes from step {buffer.first} "
                f"to {buffer.last}, tensor {tensor.name!r} {tensor.size:,} from {first} to {last}",
                hint="the log is of another model, or of a version that counts steps otherwise",
            )


def _scratch(memory: MemoryMap, plan: Sequence[PlannedBuffer]) -> Iterator[Placement]:
    """The scratch buffers of the device. A scratch buffer is alive while its operator runs."""
    steps = {step.scope: step for step in memory.steps}
    names = operators(memory)
    outputs = {(p.subgraph, p.operator): p.name for p in reversed(memory.placements)}
    count: dict[tuple[int, int | None], int] = {}
    for buffer in plan:
        step = steps.get(buffer.first)
        site = (step.subgraph, step.operator) if step else (0, None)
        number = count.get(site, 0)
        count[site] = number + 1
        of = outputs.get(site, "unknown") if site[1] is not None else "unknown"
        yield Placement(
            name=f"{of}/scratch:{number}",
            subgraph=site[0],
            index=None,
            operator=site[1],
            op=names.get((site[0], site[1]), "") if site[1] is not None else "",
            home="arena",
            dtype="bytes",
            shape=(buffer.size,),
            bytes=buffer.size,
            size=buffer.size,
            offset=buffer.offset,
            alive=(buffer.first, buffer.last),
        )


def _offsets(memory: MemoryMap, placements: Sequence[Placement]) -> Iterator[Compared]:
    """How many buffers there are, and how many lie where they were predicted."""
    before = [p for p in memory if p.home == "arena"]
    after = [p for p in placements if p.home == "arena"]
    yield Compared("buffers", len(before), len(after))
    scratch = [p.size for p in after if p.index is None]
    known = sum(p.size for p in before if p.index is None)
    yield Compared("bytes of scratch", None if memory.arena.unknown else known, sum(scratch))
    places = {p.name: p.offset for p in before}
    moved = sum(places[p.name] != p.offset for p in after if p.name in places)
    yield Compared("buffers elsewhere than predicted", 0, moved)


def _planned(memory: MemoryMap, placements: Sequence[Placement]) -> Arena:
    """The head as the device's planner laid it out."""
    placed = [p for p in placements if p.home == "arena"]
    buffers = [Buffer(p.size, *(p.alive or (0, 0))) for p in placed]
    alive = live_bytes(buffers)
    bound = max(alive.values(), default=0)
    head = extent(buffers, [p.offset or 0 for p in placed])
    peak = _peak(memory, placed, next((s for s, count in alive.items() if count == bound), None))
    return replace(memory.arena, head=head, lower_bound=bound, peak=peak)


def _peak(memory: MemoryMap, placed: Sequence[Placement], scope: int | None) -> Peak | None:
    step = next((step for step in memory.steps if step.scope == scope), None)
    if step is None:
        return memory.arena.peak
    alive = [p for p in placed if p.alive and p.alive[0] <= step.scope <= p.alive[1]]
    op = "INPUT"
    if step.operator is not None:
        op = operators(memory).get((step.subgraph, step.operator), "")
    return Peak(step, op, sum(p.size for p in alive), tuple(p.name for p in alive))


def _recorded(arena: Arena, found: Allocations) -> Arena:
    """The sections as the device counted them; what it has no line for is the allocator's."""
    sections = [Section(one.name, one.count, one.used, "measured") for one in found.recorded]
    rest = found.tail - sum(one.used for one in found.recorded)
    sections.append(Section("allocator, planner and the rest", 1, rest, "measured"))
    return replace(arena, head=found.head, tail=found.tail, sections=tuple(sections))


def _sizes(memory: MemoryMap, found: Allocations) -> Iterator[Compared]:
    arena = memory.arena
    exact = not arena.unknown
    yield Compared("total", arena.used if exact else None, found.total)
    yield Compared("head", arena.head if exact else None, found.head)
    yield Compared("tail", arena.tail if exact else None, found.tail)
    known = {section.name: section.bytes for section in arena.sections}
    for one in found.recorded:
        yield Compared(one.name, known.get(PREDICTED.get(one.name, "")), one.used)


__all__ = ["Compared", "Measured", "measured"]
