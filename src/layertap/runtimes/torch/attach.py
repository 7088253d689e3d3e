"""Reading a module while its user runs it in a loop of their own."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.compiler import is_compiling

from layertap import recording
from layertap.core.dtypes import Array
from layertap.core.graph import Graph, Kind, TapPoint
from layertap.core.interrupts import Deferred
from layertap.core.select import (
    Selector,
    canonical,
    compile_selector,
    is_union,
    no_such_tap,
    reaches_arguments,
    select,
)
from layertap.errors import RunError, SourceError, Untappable
from layertap.runtimes.torch import internals
from layertap.runtimes.torch.arrays import snapshot, to_array
from layertap.runtimes.torch.calls import Calls, Value
from layertap.runtimes.torch.catalog import Catalog, Slot, is_compiled
from layertap.runtimes.torch.feeding import Arguments
from layertap.runtimes.torch.graph import (
    INPUT,
    OUTPUT,
    Builder,
    Key,
    Names,
    TorchGraph,
    promised,
    rows,
)
from layertap.runtimes.torch.listening import Listening, caller
from layertap.runtimes.torch.tracing import input_leaves

_is_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]

_UNDECIDED = "?"
"""In place of a name, of a value that has not appeared yet."""

_TAIL = re.compile(r"(@\d+)?(:[^|&~()\"]*)?$")


def attach(module: Any, selector: Selector = None) -> Attached:
    """Listen to a live ``nn.Module`` while its user calls it; a context manager.

    It gives a mapping from tap names to NumPy arrays: detached copies of the values of the latest
    call, made when they were produced, for each thread those of its own calls. Gradients, training
    and generation go on as without it. ``torch.compile`` is suspended meanwhile. Entering raises
    NoSuchTap when nothing can match.
    """
    if not isinstance(module, nn.Module):
        raise SourceError(
            f"a {type(module).__name__} is not a torch.nn.Module", hint="pass the module itself"
        )
    return Attached(module, selector)


class Attached(Mapping[str, Array]):
    """The values of the latest call, by tap name; see :func:`attach`.

    A value stays until the module that it belongs to is called again, from outside or by a module
    that was. What a checkpoint computes anew in a backward pass is no such call. Several threads
    that call the module have values of their own; a thread that has called nothing sees those of
    the only thread that has. Reading a tap that no call has produced yet raises RunError.
    """

    def __init__(self, module: nn.Module, selector: Selector) -> None:
        self._catalog = Catalog(module)
        self._compiled = is_compiled(module)
        self._arguments = Arguments(self._catalog.root)
        names = Names(self._catalog, self._arguments.inputs)
        self._names = names
        self._graph = promised(self._catalog, self._arguments.inputs, names).graph
        self._selector = canonical(self._graph, selector)
        self._chosen = _Chosen(Builder(self._catalog, names), self._selector)
        self._listening = Listening([slot.module for slot in self._catalog.slots])
        self._callers: dict[int, _Caller] = {}
        self.modules = {id(slot.module): slot.index for slot in self._catalog.slots}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        _check(self._graph, self._selector)
        with Deferred(), ExitStack() as stack:
            if self._compiled or "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(self._listening.attached(self))
            stack.enter_context(recording.listening(self._record, alone=False))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with Deferred():
            self._stack.close()

    def enter(self, slot: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        # What is traced is to become a program, of which reading must be no part.
        if internals.in_backward() or _is_tracing() or is_compiling():
            return None
        heard = self._callers.get(caller())
        if heard is None:
            heard = _Caller(self._catalog, self._arguments, self._chosen)
            self._callers[caller()] = heard
        return heard, heard.enter(slot, args, kwargs)

    def leave(self, token: Any, output: Any) -> None:
        if token is not None:
            token[0].leave(token[1], output)

    def failed(self, token: Any) -> None:
        if token is not None:
            token[0].failed(token[1])

    def _record(self, name: str, value: Any) -> None:
        heard = self._callers.get(caller())
        if heard is not None and heard.depth:  # else it is another model's, or nobody's
            heard.record(name, value)

    @property
    def _values(self) -> Mapping[Key, torch.Tensor]:
        """Those of this thread; of the only other one, where this one has called nothing."""
        own = self._callers.get(caller())
        if own is None and len(self._callers) == 1:
            (own,) = self._callers.values()
        return {} if own is None else own.values

    def _find(self, name: str) -> Key | None:
        name = self._graph.canonical(name)
        return next((key for key in self._values if self._chosen.names[key] == name), None)

    def _weights(self) -> dict[str, torch.Tensor]:
        tensors = dict(self._catalog.tensors())
        weights = [tap for tap in self._graph.of_kind("weight") if self._chosen.wanted(tap)]
        found = {tap.name: tensors[self._names.key(tap.name).suffix] for tap in weights}
        return {name: tensor for name, tensor in found.items() if not nn.parameter.is_lazy(tensor)}

    def __getitem__(self, name: str) -> Array:
        key = self._find(name)
        if key is not None:
            return self._array(name, self._values[key])
        weights = self._weights()
        if self._graph.canonical(name) in weights:
            return self._array(name, weights[self._graph.canonical(name)].detach().clone())
        known = [*self._graph, *self._chosen.builder.taps]
        if not _could_match(Graph({tap.name: tap for tap in known}.values()), name):
            raise no_such_tap(self._graph, name)
        raise RunError(
            f"{name!r} has no value: it was not selected, or no call has produced it",
            hint="call the module inside the with block, and not through compiled code"
            + (", and read in the thread that called it" if self._callers else ""),
        )

    def _array(self, name: str, tensor: torch.Tensor) -> Array:
        try:
            # What is handed out is the receiver's: the next read is of what was captured.
            return to_array(tensor).copy()
        except Untappable as error:
            raise Untappable(f"{name!r}: {error.message}", hint=error.hint) from error

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (self._find(name) is not None or name in self._weights())

    def __iter__(self) -> Iterator[str]:
        names = (self._chosen.names[key] for key in self._values)
        yield from (name for name in names if name is not None)
        yield from self._weights()

    def __len__(self) -> int:
        return len(self._values) + len(self._weights())


class _Chosen:
    """Which values are wanted, by what is known of them when they appear; ``names`` of those that
    are, None for the others."""

    def __init__(self, builder: Builder, selector: Selector) -> None:
        self.builder, self.wanted = builder, compile_selector(selector)
        self.arguments = reaches_arguments(selector)
        self.names: dict[Key, str | None] = {}
        self._lock = threading.Lock()

    def name(self, value: Value, kind: Kind) -> str | None:
        if value.key in self.names:
            return self.names[value.key]
        with self._lock:
            if value.key not in self.names:
                key, wanted, slot, tensor = value
                tap = self.builder.add_tensor(
                    key, wanted, kind, slot.op, tensor, rows(tensor, None, 1)
                )
                self.names[key] = tap.name if self.wanted(tap) and not tap.untappable else None
        return self.names[value.key]


class _Caller(Calls):
    """The calls of one thread, and the values of the latest."""

    def __init__(self, catalog: Catalog, arguments: Arguments, chosen: _Chosen) -> None:
        super().__init__(catalog, {}, hears_given=chosen.arguments)
        self.arguments, self.chosen = arguments, chosen
        self.values: dict[Key, torch.Tensor] = {}
        self.depth = 0
        self._inside: dict[int, frozenset[int]] = {}
        self._keys: dict[tuple[int, int], Key] = {}

    def enter(self, slot: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, int]:
        with self.lock:
            named = self.slots[slot].name
            if self.depth == 0 or not named:
                self._begin(self.slots[slot])
            self.depth += 1
            if not named:
                root = self.slots[slot]
                for name, leaf in input_leaves(self.arguments.named(args, kwargs)):
                    self._keep(Value(Key(INPUT, 0, name), name, root, leaf), "input")
            return self._enter(slot, args, kwargs)

    def leave(self, token: tuple[int, int], output: Any) -> None:
        with self.lock:
            self.depth -= 1
            key = self._keys.get(token)
            name = None if key is None else self.chosen.names.get(key, _UNDECIDED)
            if key is None or name is _UNDECIDED or type(output) is not torch.Tensor:
                self._keys[token] = Key(*token, "")
                self._leave(token, output)
                return
            self.open.leave(token)
            if name is not None and not internals.is_transformed(output):
                self.values[key] = snapshot(output)

    def failed(self, token: tuple[int, int]) -> None:
        with self.lock:
            self.depth -= 1
            super().failed(token)

    def _begin(self, slot: Slot) -> None:
        """A call from outside: what it is about to replace is forgotten."""
        if slot.index not in self._inside:
            below = set(slot.module.modules())
            self._inside[slot.index] = frozenset(s.index for s in self.slots if s.module in below)
        inside = self._inside[slot.index]
        for index in inside:
            self.counts[index] = 0
        whole = not slot.name
        for key in [k for k in self.values if k.slot in inside or (whole and k.slot < 0)]:
            del self.values[key]
        self.depth = 0
        self.open.reset()

    def given(self, slot: Slot, call: int, values: list[Value]) -> None:
        for value in values if slot.name else ():
            self._keep(value, "argument")

    def returned(self, slot: Slot, call: int, values: list[Value]) -> None:
        for value in values:
            if slot.name:
                self._keep(value, "activation")
            elif call == 0:
                key, suffix = Key(OUTPUT, 0, value.key.suffix), value.key.suffix
                self._keep(value._replace(key=key, wanted="output" + suffix), "output")

    def recorded(self, value: Value) -> None:
        self._keep(value, "activation")

    def _keep(self, value: Value, kind: Kind) -> None:
        if internals.is_transformed(value.tensor):
            return
        if self.chosen.name(value, kind) is not None:
            self.values[value.key] = snapshot(value.tensor)


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
