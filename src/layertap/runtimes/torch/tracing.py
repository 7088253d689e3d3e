"""The graph of a network, and the values that are wanted, of one real call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from layertap.core.axes import Evidence
from layertap.core.graph import Kind, TapPoint
from layertap.core.protocols import Wanted
from layertap.runtimes.torch.arrays import snapshot
from layertap.runtimes.torch.calls import Calls, Value
from layertap.runtimes.torch.catalog import Catalog, Slot
from layertap.runtimes.torch.following import Following
from layertap.runtimes.torch.graph import (
    INPUT,
    OUTPUT,
    Builder,
    Key,
    Named,
    Names,
    TorchGraph,
    rows,
)
from layertap.runtimes.torch.leaves import output_leaves
from layertap.runtimes.torch.places import UNKNOWN, Place

FOLLOWED: Evidence = "followed op by op"


@dataclass(frozen=True, slots=True)
class Traced:
    """What one call has told.

    axes: how it is known which axis of a tap counts samples, or why it is not, by name.
    doubtful: names of taps of which an axis may count samples, and nothing has proven it.
    recording: modules (by slot) in whose calls a value was recorded.
    parts: how many calls of the network's own parts had begun when a value appeared.
    values: copies of what was wanted, by key.
    """

    named: Named
    axes: Mapping[str, str] = field(default_factory=dict)
    doubtful: frozenset[str] = frozenset()
    recording: frozenset[int] = frozenset()
    parts: Mapping[Key, int] = field(default_factory=dict)
    values: Mapping[Key, torch.Tensor] = field(default_factory=dict)

    @property
    def graph(self) -> TorchGraph:
        return self.named.graph

    @property
    def keys(self) -> Mapping[str, Key]:
        return self.named.keys

    def without_values(self) -> Traced:
        return replace(self, values={})

    def settled(self, found: Mapping[str, int | None], how: Evidence) -> Traced:
        """The same, knowing of doubtful taps which axis counts samples; None where none does."""
        taps = [
            _counted(tap, axis) if (axis := found.get(tap.name)) is not None else tap
            for tap in self.graph
        ]
        axes = {name: how for name, axis in found.items() if axis is not None}
        refuted = {name: f"none: {how}, refutes it" for name, axis in found.items() if axis is None}
        graph = TorchGraph(taps, self.graph.aliases, complete=True)
        return replace(
            self,
            named=replace(self.named, graph=graph),
            axes={**self.axes, **axes, **refuted},
            doubtful=self.doubtful - found.keys(),
        )


def _counted(tap: TapPoint, axis: int) -> TapPoint:
    shape = tap.shape or ()
    counted = (*shape[:axis], None, *shape[axis + 1 :])
    return replace(tap, per="sample", shape=counted, batch_axis=axis)


class Tracer(Calls):
    """Listens to one call of the network and builds its graph; ``wanted`` values are copied.

    Tensors are known again by identity, so they are all kept alive meanwhile.
    """

    def __init__(
        self, catalog: Catalog, names: Names, following: Following, wanted: Wanted | None
    ) -> None:
        named = {id(slot.module): slot.index for slot in catalog.slots if slot.name}
        super().__init__(catalog, named)
        self.catalog = catalog
        self.following = following
        self.wanted = wanted
        self.builder = Builder(catalog, names)
        self.axes: dict[str, str] = {}
        self.doubtful: set[str] = set()
        self.values: dict[Key, torch.Tensor] = {}
        self.parts: dict[Key, int] = {}
        self.begun = 0
        self.operands: dict[tuple[int, int], tuple[str, ...]] = {}
        self.recording: set[int] = set()
        self.producers: dict[int, tuple[str, torch.Tensor]] = {}
        self._parts = {id(module) for module in catalog.root.children()}

    def inputs(self, named: Mapping[str, Any]) -> None:
        """Take in what the network is called with, by input name."""
        for name, leaf in input_leaves(named):
            self._produce(Key(INPUT, 0, name), name, "input", "Input", leaf, ())

    def given(self, slot: Slot, call: int, values: list[Value]) -> None:
        self.begun += id(slot.module) in self._parts
        operands: list[str] = []
        for value in values:
            producer = self._producer(value.tensor)
            tap = self._add(value.key, value.wanted, "argument", slot.op, value.tensor, producer)
            operands.extend(producer or (tap.name,))
            if not producer:
                self.producers[id(value.tensor)] = tap.name, value.tensor
        self.operands[slot.index, call] = tuple(dict.fromkeys(operands))

    def returned(self, slot: Slot, call: int, values: list[Value]) -> None:
        arguments = self.operands[slot.index, call]
        for key, wanted, _, leaf in values:
            self._produce(
                key, wanted, "activation", slot.op, leaf, self._producer(leaf) or arguments
            )

    def recorded(self, value: Value) -> None:
        self.recording.add(value.key.slot)
        operands = self._producer(value.tensor)
        self._produce(value.key, value.wanted, "activation", "record", value.tensor, operands)

    def finished(self, output: Any) -> Traced:
        """Take in what the network returned; the graph is complete then."""
        op = type(self.catalog.root).__name__
        called = {slot for slot, count in enumerate(self.counts) if count}
        # Nothing is proven of what a later batch may call.
        self.builder.add_uncalled(called, "batch")
        for suffix, leaf in output_leaves(output):
            operands = self._producer(leaf)
            self._produce(Key(OUTPUT, 0, suffix), "output" + suffix, "output", op, leaf, operands)
        self.builder.add_weights()
        return Traced(
            self.builder.build(complete=True),
            self.axes,
            frozenset(self.doubtful),
            frozenset(self.recording),
            self.parts,
            self.values,
        )

    def _producer(self, tensor: torch.Tensor) -> tuple[str, ...]:
        found = self.producers.get(id(tensor))
        return () if found is None else (found[0],)

    def _produce(
        self, key: Key, wanted: str, kind: Kind, op: str, tensor: torch.Tensor,
        operands: tuple[str, ...],
    ) -> None:  # fmt: skip
        tap = self._add(key, wanted, kind, op, tensor, operands)
        self.producers[id(tensor)] = tap.name, tensor

    def _add(
        self, key: Key, wanted: str, kind: Kind, op: str, tensor: torch.Tensor,
        operands: tuple[str, ...],
    ) -> TapPoint:  # fmt: skip
        samples, place = self.following.samples, self.following.place(tensor)
        tap = self.builder.add_tensor(
            key, wanted, kind, op, tensor, rows(tensor, place, samples), operands
        )
        self.axes[tap.name] = _known(place, tap)
        if place in (UNKNOWN, None) and samples > 1 and samples in (tap.shape or ()):
            self.doubtful.add(tap.name)
        self.parts[key] = self.begun
        if not tap.untappable and self.wanted is not None and self.wanted(tap):
            self.values[key] = snapshot(tensor)
        return tap


def _known(place: Place | None, tap: TapPoint) -> str:
    """How it is known, of a tap, which axis counts samples, or why it is not."""
    if tap.per == "sample":
        return "one sample" if place == UNKNOWN else FOLLOWED
    if place is None:
        return "none: it holds no samples, or all of them mixed"
    if place != UNKNOWN:
        return "none: the samples are merged with other axes"
    return "unknown: an operation could not be followed"


def input_leaves(named: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors among the arguments of a network, by the names of its inputs."""
    for name, value in named.items():
        for suffix, leaf in output_leaves(value):
            yield name + suffix, leaf
