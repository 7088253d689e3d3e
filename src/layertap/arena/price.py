"""What a tap costs: the bytes of arena that a tensor adds when it becomes an output of the model.

A tap's buffer lives on to the end, which may push others up, and the interpreter keeps a
description of each output in the persistent section. Nothing else changes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from layertap.arena.buffers import Buffer, aligned, live_bytes
from layertap.arena.grouping import Limit
from layertap.arena.longer import LongerLives
from layertap.arena.mapping import memory_map, tapped
from layertap.arena.memory_map import Arena
from layertap.arena.minimum import Needs
from layertap.arena.preparation import prepare
from layertap.arena.tail import Tail, build_tail, interface
from layertap.arena.target import Target
from layertap.core.graph import COMPUTED
from layertap.tflite.graph import MAIN, tap_graph
from layertap.tflite.layout import layout_of
from layertap.tflite.model import TfliteModel

_LIMITS = 4
_SAMPLED = 200
"""Limits that are kept, and scopes that are looked at for them."""

_SLACK = 24
"""Bytes of a tap's share of the persistent section that may be the rounding of its neighbours."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one more tap costs. ``bytes`` is the tensor's own size; ``head``, ``tail`` and
    ``minimum`` are the bytes by which the non-persistent section, the persistent one and the
    smallest arena grow. ``head`` is below 0 where the greedy planner happens to do better."""

    name: str
    index: int
    op: str
    bytes: int
    head: int
    tail: int
    minimum: int


class TapCosts:
    """The arena that a model needs with any set of taps, ``tensors`` of its main subgraph.

    ``map`` is the model without taps. Figures equal those of the memory map of the model with the
    taps as outputs, and take a small part of the time. Raises CorruptModel.
    """

    def __init__(self, model: TfliteModel, target: Target) -> None:
        self.model, self.target = model, target
        self.map = memory_map(model, target)
        main = model.subgraphs[MAIN]
        self._outputs, self._tensors = main.outputs, main.tensors
        planned = [placement for placement in self.map.placements if placement.home == "arena"]
        layout = layout_of(model)
        # A layout inside the model changes with its taps in ways that only the whole tells.
        self._whole = bool(layout)
        buffers = [Buffer(p.size, *(p.alive or (0, 0))) for p in planned]
        self._buffers = {
            p.index: n for n, p in enumerate(planned) if p.subgraph == MAIN and p.index is not None
        }
        end = self.map.steps[-1].scope
        self._lives = LongerLives(buffers, end)
        prepared = prepare(model, target)
        tail = build_tail(model, target, prepared, layout, len(buffers), 0)
        self._before_outputs = tail.used - tail.parts["outputs"][1]
        self._besides, _ = tail.needs.minimum()

    def head(self, taps: Sequence[int]) -> int:
        """Bytes of the non-persistent section with ``taps``."""
        if self._whole:
            return self._mapped(taps).head
        return self._lives.head_with([self._buffers[i] for i in taps if i in self._buffers])

    def tail(self, taps: Sequence[int]) -> int:
        """Bytes of the persistent section with ``taps``."""
        if self._whole:
            return self._mapped(taps).tail
        added = [i for i in dict.fromkeys(taps) if i not in self._outputs]
        tail = Tail(self.target, Needs(self.target), self._before_outputs)
        interface(tail, "outputs", self.model.subgraphs[MAIN], [*self._outputs, *added])
        return tail.used

    def minimum(self, taps: Sequence[int]) -> int:
        """Bytes of the smallest arena with ``taps``, a multiple of 16."""
        if self._whole:
            return self._mapped(taps).minimum
        return max(self._besides, aligned(self.head(taps) + self.tail(taps)))

    def limits(self, taps: Sequence[int], arena: int) -> list[Limit]:
        """What ``arena`` bytes cannot hold, whatever the layout: the persistent section, what is
        alive in a scope anyway, and the taps that would be without being taps. Tightest first."""
        main = {i: self._lives.buffers[n] for i, n in self._buffers.items()}
        described = {i: self._described(i) for i in taps}
        live = {} if self._whole else self._live()
        found = []
        for scope in _sampled([*live, self._lives.end]):
            loads = dict(described)
            for i in taps:
                kept = i in main and (self._whole or main[i].last < scope)
                loads[i] += main[i].size if kept and i not in self._outputs else 0
            room = arena - self.map.arena.tail - live.get(scope, 0)
            found.append(Limit(loads, room))
        found.sort(key=lambda limit: -sum(limit.loads.values()) / max(1, limit.room))
        return found[:_LIMITS]

    def _described(self, tap: int) -> int:
        """Bytes of the persistent section that are the tap's alone."""
        if tap in self._outputs or self._whole:
            return 0
        return max(0, self.tail([tap]) - self.map.arena.tail - _SLACK)

    def _live(self) -> dict[int, int]:
        """Bytes that are alive in each scope without taps, by scope."""
        changes = live_bytes(self._lives.buffers)
        return {scope: size for scope, size in changes.items() if 0 <= scope <= self._lives.end}

    def _mapped(self, taps: Sequence[int]) -> Arena:
        return memory_map(tapped(self.model, taps), self.target).arena


def _sampled(scopes: Sequence[int]) -> list[int]:
    """At most so many of ``scopes``, the last one among them."""
    step = -(-len(scopes) // _SAMPLED)
    return list(dict.fromkeys([*scopes[::step], scopes[-1]]))


def prices(
    model: TfliteModel, target: Target, wanted: Collection[int] | None = None
) -> list[Price]:
    """What each of the tensors ``wanted`` of the main subgraph, or with None each that it computes,
    costs as a tap, in graph order. Raises CorruptModel."""
    costs = TapCosts(model, target)
    base = costs.map.arena
    taps = [
        tap
        for tap in tap_graph(model).graph
        if tap.subgraph == MAIN and (wanted is None or tap.index in wanted)
    ]
    sizes = {p.index: p.bytes for p in costs.map.placements if p.subgraph == MAIN}
    return [
        Price(
            name=tap.name,
            index=tap.index,
            op=tap.op,
            bytes=sizes[tap.index],
            head=costs.head([tap.index]) - base.head,
            tail=costs.tail([tap.index]) - base.tail,
            minimum=costs.minimum([tap.index]) - base.minimum,
        )
        for tap in taps
        if tap.kind in COMPUTED and not tap.untappable
    ]


__all__ = ["Price", "TapCosts", "prices"]
