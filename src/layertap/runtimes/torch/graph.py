"""The tap points of a network, under names that they keep while it is open."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.parameter import is_lazy

from layertap.core.feeds import InputSpec
from layertap.core.graph import Graph, Kind, Per, TapPoint
from layertap.runtimes.torch.arrays import dtype_name, why_untappable
from layertap.runtimes.torch.catalog import Catalog, Slot
from layertap.runtimes.torch.leaves import unique
from layertap.runtimes.torch.places import UNKNOWN as UNKNOWN_PLACE
from layertap.runtimes.torch.places import Place

UNKNOWN = "unknown"
"""The dtype of a tap point before an example was seen."""


class Key(NamedTuple):
    """Where a tap's value appears: at which call of which module (by its slot), under which
    suffix. What belongs to the network as a whole has a negative slot."""

    slot: int
    call: int
    suffix: str

    @property
    def is_argument(self) -> bool:
        return self.slot >= 0 and self.suffix[:1] not in ("", ":", "/")

    @property
    def is_recorded(self) -> bool:
        return self.suffix[:1] == "/"


INPUT, OUTPUT, WEIGHT = -1, -2, -3


class TorchGraph(Graph):
    """A graph that also finds a tap by the further names of a module or tensor that has several."""

    def __init__(
        self, taps: Iterable[TapPoint], aliases: Mapping[str, str], *, complete: bool
    ) -> None:
        super().__init__(taps, complete=complete)
        self.aliases = aliases

    def __getitem__(self, key: str | int) -> TapPoint:
        return super().__getitem__(key if isinstance(key, int) else self.canonical(key))

    def __contains__(self, key: object) -> bool:
        return super().__contains__(self.canonical(key) if isinstance(key, str) else key)

    def canonical(self, name: str) -> str:
        """``name`` with a further name of its module, or of a module around it, replaced by the
        first; unchanged when it is a tap's own name, or nobody's."""
        if name in self._by_name:
            return name
        end = min((name.find(mark) for mark in "@:/" if mark in name), default=len(name))
        return self.aliases.get(name[:end], name[:end]) + name[end:]


class Names:
    """Names and numbers that a tap keeps for as long as its model is open.

    Modules come first, so that nothing found later takes the name of one.
    """

    def __init__(self, catalog: Catalog, inputs: Iterable[InputSpec]) -> None:
        self._names: dict[Key, tuple[str, int]] = {}
        self._taken: set[str] = set()
        for slot in catalog.slots:
            if slot.name:
                self.of(Key(slot.index, 0, ""), slot.name)
        for spec in inputs:
            self.of(Key(INPUT, 0, spec.name), spec.name)
        self.of(Key(OUTPUT, 0, ""), "output")
        for name, _ in catalog.tensors():
            self.of(Key(WEIGHT, 0, name), name)

    def of(self, key: Key, wanted: str) -> tuple[str, int]:
        """The name of the tap at ``key``, ``wanted`` where it is free, and its number."""
        if key not in self._names:
            self._names[key] = (unique(wanted, self._taken), len(self._names))
        return self._names[key]

    def key(self, name: str) -> Key:
        """The key of the tap called ``name``. Raises KeyError."""
        for key, (given, _) in self._names.items():
            if given == name:
                return key
        raise KeyError(name)


class Rows(NamedTuple):
    """The shape of a tensor as a graph has it, and what its rows are."""

    shape: tuple[int | None, ...] | None
    per: Per
    axis: int = 0


def rows(tensor: torch.Tensor, place: Place | None, samples: int) -> Rows:
    """What the rows of ``tensor`` are, whose samples lie at ``place``. Whatever there is of a batch
    of one sample belongs to that sample."""
    if tensor.is_nested:
        return Rows(None, "batch")
    shape = tuple(int(size) for size in tensor.shape)
    if place == UNKNOWN_PLACE and samples == 1 and shape[:1] == (1,):
        place = Place(0)
    if place is None or place == UNKNOWN_PLACE or not place.alone:
        return Rows(shape, "batch")
    return Rows((*shape[: place.axis], None, *shape[place.axis + 1 :]), "sample", place.axis)


def constant(tensor: torch.Tensor) -> Rows:
    """The one row of a tensor that never changes."""
    return Rows(None if tensor.is_nested else tuple(map(int, tensor.shape)), "run")


@dataclass(frozen=True, slots=True)
class Named:
    """The graph of a network, and where the value of each of its taps appears."""

    graph: TorchGraph
    keys: Mapping[str, Key]


class Builder:
    """Collects the tap points of one graph in order."""

    def __init__(self, catalog: Catalog, names: Names) -> None:
        self.catalog = catalog
        self.names = names
        self.taps: list[TapPoint] = []
        self.keys: dict[str, Key] = {}

    def add(
        self, key: Key, wanted: str, kind: Kind, op: str, per: Per = "sample", untappable: str = ""
    ) -> None:
        """Append a tap point of which nothing else is known."""
        self._append(key, wanted, kind, op, UNKNOWN, Rows(None, per), (), untappable)

    def add_tensor(
        self, key: Key, wanted: str, kind: Kind, op: str, tensor: torch.Tensor, rows: Rows,
        operands: tuple[str, ...] = (),
    ) -> TapPoint:  # fmt: skip
        """Append a tap point for ``tensor`` and return it."""
        dtype, reason = dtype_name(tensor.dtype), why_untappable(tensor)
        return self._append(key, wanted, kind, op, dtype, rows, operands, reason)

    def _append(
        self, key: Key, wanted: str, kind: Kind, op: str, dtype: str, rows: Rows,
        operands: tuple[str, ...], untappable: str,
    ) -> TapPoint:  # fmt: skip
        name, number = self.names.of(key, wanted)
        tap = TapPoint(name, kind, op, dtype, rows.shape, number, per=rows.per, operands=operands,
                       untappable=untappable, batch_axis=rows.axis)  # fmt: skip
        self.keys[name] = key
        self.taps.append(tap)
        return tap

    def add_uncalled(self, called: Container[int], per: Per) -> None:
        """The modules that no call was seen of; the root's outputs are taps of their own."""
        for slot in self.catalog.slots:
            if slot.name and slot.index not in called:
                self.add(Key(slot.index, 0, ""), slot.name, "activation", slot.op, per)

    def add_weights(self) -> None:
        for name, tensor in self.catalog.tensors():
            key, op = Key(WEIGHT, 0, name), type_name(tensor)
            if is_lazy(tensor):
                self.add(key, name, "weight", op, "run", "it has no shape before the first call")
            else:
                self.add_tensor(key, name, "weight", op, tensor, constant(tensor))

    def build(self, *, complete: bool) -> Named:
        aliases = {**dict(self.catalog.tensor_aliases()), **self.catalog.aliases}
        return Named(TorchGraph(self.taps, aliases, complete=complete), self.keys)


def type_name(tensor: torch.Tensor) -> str:
    return "Parameter" if isinstance(tensor, torch.nn.Parameter) else "Buffer"


def promised(catalog: Catalog, inputs: Iterable[InputSpec], names: Names) -> Named:
    """The tap points that can be told without running: one per module, shapes unknown."""
    builder = Builder(catalog, names)
    for spec in inputs:
        builder.add(Key(INPUT, 0, spec.name), spec.name, "input", "Input")
    builder.add_uncalled((), "sample")
    builder.add(Key(OUTPUT, 0, ""), "output", "output", type(catalog.root).__name__)
    builder.add_weights()
    return builder.build(complete=False)


def base_name(slot: Slot, call: int) -> str:
    """``dense`` for the first call of a module, ``dense@1`` for the second."""
    return f"{slot.name}@{call}" if call else slot.name


def recorded_name(slot: Slot, key: Key) -> str:
    """The name of a value that was recorded in a call of the module at ``slot``."""
    return base_name(slot, key.call) + key.suffix if slot.name else key.suffix[1:]
