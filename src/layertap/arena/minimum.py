"""The smallest arena in which a model can be allocated.

While the interpreter prepares a model it borrows memory between the two sections: for requests of
scratch buffers, for descriptions of tensors, for the planner. It fails where the sections and what
is borrowed do not fit. Source: tflite-micro, tensorflow/lite/micro/micro_allocator.cc,
micro_allocation_info.cc, memory_planner/greedy_memory_planner.cc and .h,
arena_allocator/single_arena_buffer_allocator.cc.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from layertap.arena.buffers import aligned
from layertap.arena.memory_map import Reason
from layertap.arena.target import Target

_REQUESTS = 12
"""Requests of scratch buffers for which room is kept before each operator."""

_INTS = 3 * 4
"""Bytes per buffer of the planner's lists of sizes, numbers and offsets."""


@dataclass(slots=True)
class Needs:
    """Follows an allocation and remembers what the arena had to have at least, and for what."""

    target: Target
    low: int = 0
    """Bytes at the start of the arena that are reserved."""
    borrowed: int = 0
    """End of what is borrowed above them."""
    most: dict[Reason, int] = field(default_factory=lambda: dict[Reason, int]())
    unseen: int = 0
    """Below so many bytes a kernel overwrites what it works with, which nothing checks."""

    def minimum(self) -> tuple[int, Reason]:
        """Bytes, a multiple of the alignment, and what decides it."""
        noticed, reason = self.noticed()
        if self.unseen > noticed:
            return aligned(self.unseen), "preparation"
        return noticed, reason

    def noticed(self) -> tuple[int, Reason]:
        """The same as far as the interpreter itself fails in a smaller arena."""
        reason = max(self.most, key=lambda reason: (self.most[reason], reason == "buffers"))
        return aligned(self.most[reason]), reason

    def persistent(self, used: int) -> None:
        """The persistent section has grown to ``used`` bytes. The interpreter does not see when it
        grows into what is borrowed; the kernel then overwrites what it works with."""
        self._need("buffers", used + self.low)
        if self.borrowed > self.low:
            self.unseen = max(self.unseen, used + self.borrowed)

    def scratch(self, requests: int) -> None:
        """Room for so many requests so far, and those of one more operator; what was borrowed is
        given back."""
        size, _ = self.target.structs["ScratchBufferRequest"]
        self.low = self.borrowed = size * (requests + _REQUESTS)

    def temporary(self, size: int, alignment: int, used: int) -> None:
        """Something is borrowed, until the operator has been prepared."""
        self.borrowed = aligned(self.borrowed, alignment) + size
        self._need("preparation", self.borrowed + used)

    def plan_begins(self, subgraphs: int, infos: int, used: int) -> None:
        """The lifetimes of ``infos`` tensors and scratch buffers are worked out."""
        size, alignment = self.target.structs["AllocationInfo"]
        self.borrowed = aligned(self.low, self.target.pointer) + self.target.pointer * subgraphs
        self.borrowed = aligned(self.borrowed, alignment) + size * infos
        self._need("planner", self.borrowed + used)

    def plan_ends(self, buffers: int, used: int, head: int) -> None:
        """The planner works in what is left, and the head takes the place of what was borrowed."""
        per_buffer = _INTS + sum(
            self.target.structs[f"GreedyMemoryPlanner::{part}"][0]
            for part in ("BufferRequirements", "ListEntry")
        )
        room = aligned(used) + aligned(self.borrowed)
        self._need("planner", room + per_buffer * buffers)
        self.low = self.borrowed = head
        self._need("buffers", used + head)

    def _need(self, reason: Reason, size: int) -> None:
        self.most[reason] = max(self.most.get(reason, 0), size)


__all__ = ["Needs"]
