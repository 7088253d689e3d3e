"""Reading a module while its user runs it in a loop of their own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from layertap import recording
from layertap.core.dtypes import Array
from layertap.core.graph import Graph, Kind, TapPoint
from layertap.core.select import (
    Predicate,
    Selector,
    compile_selector,
    is_union,
    no_such_tap,
    select,
)
from layertap.errors import RunError, SourceError
from layertap.runtimes.torch.arrays import to_array
from layertap.runtimes.torch.catalog import Catalog, Slot, is_compiled
from layertap.runtimes.torch.feeding import Arguments
from layertap.runtimes.torch.intercept import Interception, Listener
from layertap.runtimes.torch.leaves import argument_leaves, output_leaves
from layertap.runtimes.torch.tracing import (
    INPUT,
    OUTPUT,
    Builder,
    Key,
    Names,
    OpenCalls,
    TorchGraph,
    base_name,
    promised,
    recorded_name,
)

_TAIL = re.compile(r"(@\d+)?(:[^|&~()\"]*)?$")


def attach(module: Any, selector: Selector = None) -> Attached:
    """Listen to a live ``nn.Module`` while its user calls it; a context manager.

    It gives a mapping from tap names to NumPy arrays: detached copies of the values of the latest
    call, made when they were produced. Gradients, training and generation go on as without it.
    ``torch.compile`` is suspended meanwhile. Entering raises NoSuchTap when nothing can match.
    """
    if not isinstance(module, nn.Module):
        raise SourceError(
            f"a {type(module).__name__} is not a torch.nn.Module", hint="pass the module itself"
        )
    return Attached(module, selector)


class Attached(Mapping[str, Array]):
    """The values of the latest call, by tap name; see :func:`attach`.

    A value stays until the module that it belongs to is called again, from outside or by a module
    that was. Reading a tap that no call has produced yet raises RunError.
    """

    def __init__(self, module: nn.Module, selector: Selector) -> None:
        self._catalog = Catalog(module)
        self._compiled = is_compiled(module)
        self._arguments = Arguments(self._catalog.root)
        self._names = Names(self._catalog, self._arguments.inputs)
        self._graph = promised(self._catalog, self._arguments.inputs, self._names).graph
        self._builder = Builder(self._catalog, self._names)
        self._selector = _canonical(self._graph, selector)
        self._wanted: Predicate = compile_selector(self._selector)
        self._chosen: dict[Key, str | None] = {}
        self._values: dict[Key, torch.Tensor] = {}
        self._calls = [0] * len(self._catalog.slots)
        self._inside: dict[int, frozenset[int]] = {}
        self._depth = 0
        self._samples = 1
        self._open = OpenCalls(self._catalog)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        _check(self._graph, self._selector)
        listeners = [
            Listener(slot.module, partial(self._entered, slot), partial(self._left, slot))
            for slot in self._catalog.slots
        ]
        with ExitStack() as stack:
            if self._compiled or "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(Interception(listeners, self._catalog.fused, public=True))
            stack.enter_context(recording.listening(self._record, alone=False))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _entered(self, slot: Slot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        if self._depth == 0 or not slot.name:
            self._begin(slot, args, kwargs)
        self._depth += 1
        call = self._calls[slot.index]
        self._calls[slot.index] += 1
        if slot.name:
            self._open.enter(slot.index, call)
            for suffix, leaf in argument_leaves(args, kwargs):
                wanted = f"{base_name(slot, call)}:{suffix}"
                self._keep(Key(slot.index, call, suffix), wanted, "argument", slot, leaf)
        else:
            for name, value in self._arguments.named(args, kwargs).items():
                for suffix, leaf in output_leaves(value):
                    self._keep(Key(INPUT, 0, name + suffix), name + suffix, "input", slot, leaf)
        return call

    def _left(self, slot: Slot, call: int, output: Any) -> None:
        self._depth -= 1
        self._open.leave(slot.index, call)
        for suffix, leaf in output_leaves(output):
            if slot.name:
                key, wanted = Key(slot.index, call, suffix), base_name(slot, call) + suffix
                self._keep(key, wanted, "activation", slot, leaf)
            elif call == 0:
                self._keep(Key(OUTPUT, 0, suffix), "output" + suffix, "output", slot, leaf)

    def _begin(self, slot: Slot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call from outside: what it is about to replace is forgotten."""
        if slot.index not in self._inside:
            below = set(slot.module.modules())
            slots = self._catalog.slots
            self._inside[slot.index] = frozenset(s.index for s in slots if s.module in below)
        inside = self._inside[slot.index]
        for index in inside:
            self._calls[index] = 0
        whole = not slot.name
        for key in [k for k in self._values if k.slot in inside or (whole and k.slot < 0)]:
            del self._values[key]
        self._depth = 0
        self._open.reset()
        leaves = (leaf for _, leaf in argument_leaves(args, kwargs) if leaf.ndim)
        self._samples = next((int(leaf.shape[0]) for leaf in leaves), 1)

    def _record(self, name: str, value: Any) -> None:
        if not self._depth:
            return  # another model's, or nobody's
        for key, leaf in self._open.recorded(name, value):
            slot = self._catalog.slots[key.slot]
            self._keep(key, recorded_name(slot, key), "activation", slot, leaf)

    def _keep(self, key: Key, wanted: str, kind: Kind, slot: Slot, tensor: torch.Tensor) -> None:
        if key not in self._chosen:
            name = self._builder.add_tensor(key, wanted, kind, slot.op, tensor, self._samples)
            self._chosen[key] = name if self._wanted(self._builder.taps[-1]) else None
        if self._chosen[key] is not None:
            self._values[key] = tensor.detach().clone()

    def _find(self, name: str) -> Key | None:
        name = self._graph.canonical(name)
        return next((key for key in self._values if self._chosen[key] == name), None)

    def _weights(self) -> dict[str, torch.Tensor]:
        tensors = dict(self._catalog.tensors())
        weights = [tap for tap in self._graph.of_kind("weight") if self._wanted(tap)]
        return {tap.name: tensors[self._names.key(tap.name).suffix] for tap in weights}

    def __getitem__(self, name: str) -> Array:
        key = self._find(name)
        if key is not None:
            return to_array(self._values[key])
        weights = self._weights()
        if self._graph.canonical(name) in weights:
            return to_array(weights[self._graph.canonical(name)].detach().clone())
        known = [*self._graph, *self._builder.taps]
        if not _could_match(Graph({tap.name: tap for tap in known}.values()), name):
            raise no_such_tap(self._graph, name)
        raise RunError(
            f"{name!r} has no value: it was not selected, or no call has produced it",
            hint="call the module inside the with block, and not through compiled code",
        )

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (self._find(name) is not None or name in self._weights())

    def __iter__(self) -> Iterator[str]:
        names = (self._chosen[key] for key in self._values)
        yield from (name for name in names if name is not None)
        yield from self._weights()

    def __len__(self) -> int:
        return len(self._values) + len(self._weights())


def _canonical(graph: TorchGraph, selector: Selector) -> Selector:
    """``selector`` with a module's further names replaced by its first."""
    if isinstance(selector, str):
        return graph.canonical(selector)
    if not is_union(selector):
        return selector
    return [graph.canonical(part) if isinstance(part, str) else part for part in selector]


def _check(graph: TorchGraph, selector: Selector) -> None:
    """Raise NoSuchTap for what cannot match, whatever the calls will be."""
    if is_union(selector):
        for part in selector:
            _check(graph, part)
    elif not (isinstance(selector, str) and _could_match(graph, selector)):
        select(_imagined(graph), selector)


def _could_match(graph: Graph, text: str) -> bool:
    """Whether a name such as ``block:h`` or ``dense@3`` belongs to a tap point of ``graph``, or may
    be one that is recorded, ``block/h``: nobody knows those beforehand."""
    return "/" in text or any(_TAIL.sub("", part.strip()) in graph for part in text.split("|"))


def _imagined(graph: TorchGraph) -> Graph:
    """``graph`` with tap points as calls may add them: arguments, further calls and outputs."""
    taps = {tap.name: tap for tap in graph}
    tails: tuple[tuple[str, Kind], ...]
    tails = ((":args.0", "argument"), ("@1", "activation"), (":1", "activation"))
    for tap in graph.of_kind("activation"):
        for tail, kind in tails:
            name = tap.name + tail
            taps.setdefault(name, TapPoint(name, kind, tap.op, tap.dtype, None, -1))
    return Graph(taps.values())
