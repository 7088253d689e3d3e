"""The tap points of a network: those that its modules promise, and those of one example call."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch

from layertap.core.feeds import InputSpec
from layertap.core.graph import Graph, Kind, Per, TapPoint
from layertap.runtimes.torch.arrays import dtype_name, why_untappable
from layertap.runtimes.torch.catalog import Catalog, Slot
from layertap.runtimes.torch.intercept import Listener
from layertap.runtimes.torch.leaves import argument_leaves, output_leaves, unique
from layertap.runtimes.torch.writes import Writes

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
    """A graph that also finds a tap by the further names of a module that has several."""

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
        end = min((name.find(mark) for mark in "@:" if mark in name), default=len(name))
        return self.aliases.get(name[:end], name[:end]) + name[end:]


@dataclass(frozen=True, slots=True)
class Traced:
    """A graph, and where the value of each of its taps appears.

    overwritten: values that something was seen to write over later.
    once: modules (by slot) that were called exactly once.
    final: the value that a module returned last, where the network returns that very tensor.
    recording: modules (by slot) in whose calls a value was recorded.
    static: control flow does not depend on values, since fake tensors have none.
    entered: modules (by slot) in the order of their first calls.
    progress: how many of them had been called when a value appeared.
    """

    graph: TorchGraph
    keys: Mapping[str, Key]
    overwritten: frozenset[Key] = frozenset()
    once: frozenset[int] = frozenset()
    final: Key | None = None
    static: bool = False
    recording: frozenset[int] = frozenset()
    entered: Sequence[int] = ()
    progress: Mapping[Key, int] = field(default_factory=dict)

    def later_than(self, keys: Iterable[Key]) -> frozenset[int]:
        """Modules that are called only after all values at ``keys`` have appeared."""
        end = len(self.entered)
        last = max((self.progress.get(key, end) for key in keys), default=end)
        return frozenset(self.entered[last:]) if self.static else frozenset()


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


class Builder:
    """Collects the tap points of one graph in order."""

    def __init__(self, catalog: Catalog, names: Names) -> None:
        self.catalog = catalog
        self.names = names
        self.taps: list[TapPoint] = []
        self.keys: dict[str, Key] = {}

    def add(self, key: Key, wanted: str, kind: Kind, op: str) -> None:
        """Append a tap point of which nothing else is known."""
        self._append(key, wanted, kind, op, UNKNOWN, None)

    def add_tensor(
        self, key: Key, wanted: str, kind: Kind, op: str, tensor: torch.Tensor,
        samples: int | None, operands: tuple[str, ...] = (),
    ) -> str:  # fmt: skip
        """Append a tap point for ``tensor`` and return its name; ``samples`` is the length of the
        batch axis, None for a tensor that never changes."""
        shape, per = _rows(tensor, samples)
        dtype, reason = dtype_name(tensor.dtype), why_untappable(tensor)
        return self._append(key, wanted, kind, op, dtype, shape, per, operands, reason)

    def _append(
        self, key: Key, wanted: str, kind: Kind, op: str, dtype: str,
        shape: tuple[int | None, ...] | None, per: Per = "sample",
        operands: tuple[str, ...] = (), untappable: str = "",
    ) -> str:  # fmt: skip
        name, number = self.names.of(key, wanted)
        self.keys[name] = key
        self.taps.append(
            TapPoint(name, kind, op, dtype, shape, number, per=per, operands=operands,
                     untappable=untappable)
        )  # fmt: skip
        return name

    def add_uncalled(self, called: Container[int]) -> None:
        """The modules that no call was seen of; the root's outputs are taps of their own."""
        for slot in self.catalog.slots:
            if slot.name and slot.index not in called:
                self.add(Key(slot.index, 0, ""), slot.name, "activation", slot.op)

    def add_weights(self) -> None:
        for name, tensor in self.catalog.tensors():
            op = "Parameter" if isinstance(tensor, torch.nn.Parameter) else "Buffer"
            self.add_tensor(Key(WEIGHT, 0, name), name, "weight", op, tensor, None)

    def build(self, *, complete: bool) -> Traced:
        aliases = {**dict(self.catalog.tensor_aliases()), **self.catalog.aliases}
        return Traced(TorchGraph(self.taps, aliases, complete=complete), self.keys)


def _rows(tensor: torch.Tensor, samples: int | None) -> tuple[tuple[int | None, ...] | None, Per]:
    if tensor.is_nested:
        return None, "batch"
    shape = tuple(int(size) for size in tensor.shape)
    if samples is None:
        return shape, "run"
    if shape and shape[0] == samples:
        return (None, *shape[1:]), "sample"
    return shape, "batch"


def confirmed(traced: Traced, larger: Traced, samples: int) -> Traced:
    """``traced``, of a batch of ``samples``, less the belief that axis 0 of a tap counts samples
    where it is no longer in ``larger``, a trace of a larger batch."""
    others = {key: larger.graph[name].per for name, key in larger.keys.items()}
    taps = [
        replace(tap, shape=(samples, *tap.shape[1:]), per="batch")
        if tap.shape and tap.per == "sample" and others.get(traced.keys[tap.name]) == "batch"
        else tap
        for tap in traced.graph
    ]
    return replace(traced, graph=TorchGraph(taps, traced.graph.aliases, complete=True))


def promised(catalog: Catalog, inputs: Iterable[InputSpec], names: Names) -> Traced:
    """The tap points that can be told without running: one per module, shapes unknown."""
    builder = Builder(catalog, names)
    for spec in inputs:
        builder.add(Key(INPUT, 0, spec.name), spec.name, "input", "Input")
    builder.add_uncalled(())
    builder.add(Key(OUTPUT, 0, ""), "output", "output", type(catalog.root).__name__)
    builder.add_weights()
    return builder.build(complete=False)


class OpenCalls:
    """The calls that have begun and not ended: where a value belongs that is recorded now."""

    def __init__(self, catalog: Catalog) -> None:
        root = next(slot.index for slot in catalog.slots if not slot.name)
        self._root = root, 0
        self._stack: list[tuple[int, int]] = []
        self._counts: dict[tuple[int, int, str], int] = {}

    def reset(self) -> None:
        self._stack.clear()
        self._counts.clear()

    def enter(self, slot: int, call: int) -> None:
        self._stack.append((slot, call))

    def leave(self, slot: int, call: int) -> None:
        """A call that failed, and whose failure the module around it caught, never left."""
        if (slot, call) in self._stack:
            del self._stack[self._stack.index((slot, call)) :]

    def recorded(self, name: str, value: Any) -> Iterator[tuple[Key, torch.Tensor]]:
        """The keys of the tensors in ``value``: ``/name``, then ``/name.1`` in the same call."""
        slot, call = self._stack[-1] if self._stack else self._root
        number = self._counts.get((slot, call, name), 0)
        self._counts[slot, call, name] = number + 1
        local = f"/{name}.{number}" if number else f"/{name}"
        for suffix, leaf in output_leaves(value):
            yield Key(slot, call, local + suffix), leaf


def recorded_name(slot: Slot, key: Key) -> str:
    """The name of a value that was recorded in a call of the module at ``slot``."""
    return base_name(slot, key.call) + key.suffix if slot.name else key.suffix[1:]


class Tracer:
    """Listens to one call of the network and builds its graph.

    Tensors are known again by identity, so they are all kept alive meanwhile.
    """

    def __init__(self, catalog: Catalog, names: Names, samples: int, *, static: bool) -> None:
        self.catalog = catalog
        self.samples = samples
        self.static = static
        self.builder = Builder(catalog, names)
        self.last: tuple[Key, torch.Tensor] | None = None
        self.calls = [0] * len(catalog.slots)
        self.writes = Writes()
        self.moments: dict[Key, tuple[torch.Tensor, int]] = {}
        self.entered: dict[int, None] = {}
        self.progress: dict[Key, int] = {}
        self.operands: dict[tuple[int, int], tuple[str, ...]] = {}
        self.open = OpenCalls(catalog)
        self.recording: set[int] = set()
        self.producers: dict[int, tuple[str, torch.Tensor]] = {}

    def listeners(self) -> Iterator[Listener]:
        for slot in self.catalog.slots:
            if slot.name:
                yield Listener(slot.module, partial(self._enter, slot), partial(self._leave, slot))

    def inputs(self, named: Mapping[str, Any]) -> None:
        """Take in what the network is called with, by input name."""
        op = "Input"
        for name, value in named.items():
            for suffix, leaf in output_leaves(value):
                key = Key(INPUT, 0, name + suffix)
                self._produce(key, name + suffix, "input", op, leaf, ())

    def _enter(self, slot: Slot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        call = self.calls[slot.index]
        self.calls[slot.index] += 1
        self.open.enter(slot.index, call)
        self.entered[slot.index] = None
        operands: list[str] = []
        for suffix, leaf in argument_leaves(args, kwargs):
            key, wanted = Key(slot.index, call, suffix), f"{base_name(slot, call)}:{suffix}"
            producer = self._producer(leaf)
            name = self.builder.add_tensor(
                key, wanted, "argument", slot.op, leaf, self.samples, producer
            )
            self.moments[key] = leaf, self.writes.clock
            self.progress[key] = len(self.entered)
            operands.extend(producer or (name,))
            if not producer:
                self.producers[id(leaf)] = name, leaf
        self.operands[slot.index, call] = tuple(dict.fromkeys(operands))
        return call

    def record(self, name: str, value: Any) -> None:
        """Take in what the user's code records."""
        for key, leaf in self.open.recorded(name, value):
            self.recording.add(key.slot)
            wanted = recorded_name(self.catalog.slots[key.slot], key)
            self._produce(key, wanted, "activation", "record", leaf, self._producer(leaf))

    def _leave(self, slot: Slot, call: int, output: Any) -> None:
        self.open.leave(slot.index, call)
        arguments = self.operands[slot.index, call]
        for suffix, leaf in output_leaves(output):
            key, operands = Key(slot.index, call, suffix), self._producer(leaf) or arguments
            wanted = base_name(slot, call) + suffix
            self._produce(key, wanted, "activation", slot.op, leaf, operands)
            self.last = key, leaf

    def outputs(self, output: Any) -> Traced:
        """Take in what the network returned; the graph is complete then."""
        op = type(self.catalog.root).__name__
        final = None
        for suffix, leaf in output_leaves(output):
            key = Key(OUTPUT, 0, suffix)
            self._produce(key, "output" + suffix, "output", op, leaf, self._producer(leaf))
            if self.last is not None and self.last[1] is leaf:
                final = self.last[0]
        self._place_uncalled()
        self.builder.add_weights()
        since = self.writes.since
        late = (key for key, (tensor, moment) in self.moments.items() if since(tensor, moment))
        once = frozenset(slot for slot, calls in enumerate(self.calls) if calls == 1)
        traced = self.builder.build(complete=True)
        return replace(
            traced,
            overwritten=frozenset(late),
            once=once,
            entered=tuple(self.entered),
            progress=self.progress,
            final=final,
            static=self.static,
            recording=frozenset(self.recording),
        )

    def _place_uncalled(self) -> None:
        """Uncalled modules go before the outputs, which come last in every batch."""
        taps = self.builder.taps
        outputs = [tap for tap in taps if tap.kind == "output"]
        del taps[len(taps) - len(outputs) :]
        self.builder.add_uncalled({i for i, calls in enumerate(self.calls) if calls})
        taps.extend(outputs)

    def _producer(self, tensor: torch.Tensor) -> tuple[str, ...]:
        found = self.producers.get(id(tensor))
        return () if found is None else (found[0],)

    def _produce(
        self, key: Key, wanted: str, kind: Kind, op: str, tensor: torch.Tensor,
        operands: tuple[str, ...],
    ) -> None:  # fmt: skip
        name = self.builder.add_tensor(key, wanted, kind, op, tensor, self.samples, operands)
        self.producers[id(tensor)] = name, tensor
        self.moments[key] = tensor, self.writes.clock
        self.progress[key] = len(self.entered)


def base_name(slot: Slot, call: int) -> str:
    """``dense`` for the first call of a module, ``dense@1`` for the second."""
    return f"{slot.name}@{call}" if call else slot.name
