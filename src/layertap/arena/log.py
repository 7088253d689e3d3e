"""What a device's own log tells of its arena.

Firmware prints it with ``RecordingMicroAllocator::PrintAllocations`` and, when it is built with
``TF_LITE_SHOW_MEMORY_USE``, with ``GreedyMemoryPlanner::PrintMemoryPlan``. Source: tflite-micro,
tensorflow/lite/micro/recording_micro_allocator.cc and memory_planner/greedy_memory_planner.cc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from layertap.errors import LayertapError

Found = TypeVar("Found")

_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TOTAL = re.compile(r"Arena allocation (total|head|tail) (\d{1,12}) bytes")
_RECORDED = re.compile(
    r"'([^']{1,80})' used (\d{1,12}) bytes with alignment overhead "
    r"\(requested (\d{1,12}) bytes for (\d{1,12}) "
)
_BUFFER = re.compile(
    r"\(id=(?P<id>\d{1,9})\): size=(?P<size>\d{1,12}), offset=(?P<offset>-?\d{1,12}), "
    r"first_used=(?P<first>-?\d{1,9}) last_used=(?P<last>-?\d{1,9})(?!\d)"
)
_OLDER_BUFFER = re.compile(
    r"Planner buffer ID: (?P<id>\d{1,9}), calculated offset: (?P<offset>-?\d{1,12}), "
    r"size required: (?P<size>\d{1,12}), first_time_created: (?P<first>-?\d{1,9}), "
    r"last_time_used: (?P<last>-?\d{1,9})(?!\d)"
)
"""As versions up to 2021 print it."""
_DRAWING = re.compile(r"\d+: [.*!0-9a-zA-Z]{80} \(\d+k\)")
_MISSING = re.compile(
    r"Failed to (allocate tail memory|resize buffer|allocate temp memory)\. "
    r"Requested: (\d{1,12}), available (\d{1,12}), missing: (\d{1,12})"
)

NOTHING = (
    "print it in the firmware: RecordingMicroAllocator::PrintAllocations, or build with "
    "TF_LITE_SHOW_MEMORY_USE"
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Bytes of one purpose: ``used`` with alignment, ``requested`` without, in ``count`` pieces."""

    name: str
    used: int
    requested: int
    count: int


@dataclass(frozen=True, slots=True)
class Allocations:
    """What PrintAllocations prints: the arena's sections in bytes, and what the persistent one
    is for. The pieces do not add up to ``tail``, which also holds the allocator's own objects."""

    total: int
    head: int
    tail: int
    recorded: tuple[Recorded, ...]


@dataclass(frozen=True, slots=True)
class PlannedBuffer:
    """One line of PrintMemoryPlan: bytes, and the first and last scope in which it is alive."""

    size: int
    offset: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class DeviceLog:
    """What of the log is understood; None and empty where it says nothing.

    ``complete`` is False where the plan may go on after the log's end. ``notes`` say what of the
    log was left out, and which allocations failed.
    """

    allocations: Allocations | None
    plan: tuple[PlannedBuffer, ...]
    complete: bool
    notes: tuple[str, ...]


@dataclass
class _Block:
    """Totals that were printed together."""

    sizes: dict[str, int] = field(default_factory=dict)
    recorded: dict[str, Recorded] = field(default_factory=dict)

    def allocations(self) -> Allocations | None:
        if not {"total", "head", "tail"} <= self.sizes.keys():
            return None
        return Allocations(**self.sizes, recorded=tuple(self.recorded.values()))


def parse_log(text: str) -> DeviceLog:
    """Read a log with whatever else is in it: other lines, prefixes, colours, a cut end.

    Where something is printed more than once the last complete print counts. Raises LayertapError
    when nothing of the arena is in it.
    """
    reader = _Reader()
    for line in _ESCAPES.sub("", text).replace("\0", "").splitlines():
        reader.line(line)
    return reader.log()


class _Reader:
    def __init__(self) -> None:
        self.blocks: list[_Block] = []
        self.plans: list[dict[int, PlannedBuffer]] = []
        self.drawn: list[bool] = []
        self.failures: list[str] = []

    def line(self, line: str) -> None:
        if found := _TOTAL.search(line):
            self._total(found[1], int(found[2]))
        elif found := _RECORDED.search(line):
            name, used, requested, count = found[1], int(found[2]), int(found[3]), int(found[4])
            if not self.blocks:
                self.blocks.append(_Block())
            self.blocks[-1].recorded[name] = Recorded(name, used, requested, count)
        elif found := _BUFFER.search(line) or _OLDER_BUFFER.search(line):
            number = {name: int(value) for name, value in found.groupdict().items()}
            self._buffer(number.pop("id"), PlannedBuffer(**number))
        elif _DRAWING.search(line) and self.drawn:
            self.drawn[-1] = True
        elif found := _MISSING.search(line):
            self.failures.append(
                f"the device could not {found[1]}: {int(found[2]):,} bytes were asked for, "
                f"{int(found[4]):,} were missing"
            )

    def _total(self, which: str, size: int) -> None:
        if not self.blocks or which in self.blocks[-1].sizes:
            self.blocks.append(_Block())
        self.blocks[-1].sizes[which] = size

    def _buffer(self, number: int, buffer: PlannedBuffer) -> None:
        if not self.plans or number in self.plans[-1]:
            self.plans.append({})
            self.drawn.append(False)
        self.plans[-1][number] = buffer

    def log(self) -> DeviceLog:
        notes = list(self.failures)
        found = [block.allocations() for block in self.blocks]
        allocations = _last(found, notes, "totals") if found else None
        plans = [_whole(plan) for plan in self.plans]
        plan = _last(plans, notes, "memory plans") if plans else None
        drawn = [d for p, d in zip(plans, self.drawn, strict=True) if p is not None]
        complete = bool(drawn and drawn[-1])
        if plan and not complete:
            notes.append("the log ends within the memory plan: buffers may be missing")
        if allocations is None and plan is None and not notes:
            raise LayertapError("the log says nothing about an arena", hint=NOTHING)
        return DeviceLog(allocations, plan or (), complete, tuple(notes))


def _whole(plan: dict[int, PlannedBuffer]) -> tuple[PlannedBuffer, ...] | None:
    """The buffers by number, None where lines are missing between them."""
    if set(plan) != set(range(len(plan))):
        return None
    return tuple(plan[i] for i in range(len(plan)))


def _last(found: Iterable[Found | None], notes: list[str], what: str) -> Found | None:
    """The last that is whole; what is passed over goes to ``notes``."""
    every = list(found)
    whole = [one for one in every if one is not None]
    if len(whole) < len(every):
        notes.append(f"{len(every) - len(whole)} of {len(every)} {what} in the log have gaps")
    if len(whole) > 1:
        notes.append(f"the log has {len(whole)} {what}; the last one counts")
    return whole[-1] if whole else None


__all__ = ["Allocations", "DeviceLog", "PlannedBuffer", "Recorded", "parse_log"]
