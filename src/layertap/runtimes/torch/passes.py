"""Reading one batch after another, once the graph is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import torch
from torch import nn

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed
from layertap.core.graph import TapPoint
from layertap.core.protocols import Emit
from layertap.errors import RunError, Untappable
from layertap.runtimes.torch.arrays import snapshot, to_array
from layertap.runtimes.torch.calls import OpenCalls
from layertap.runtimes.torch.catalog import Catalog
from layertap.runtimes.torch.feeding import Call
from layertap.runtimes.torch.graph import INPUT, OUTPUT, Key
from layertap.runtimes.torch.internals import has_hooks, is_transformed
from layertap.runtimes.torch.leaves import argument_leaves, output_leaves
from layertap.runtimes.torch.tracing import Traced, input_leaves


class Network(Protocol):
    """What a pass needs to know of its session."""

    catalog: Catalog

    def bind(self, feed: Feed) -> tuple[Call, Mapping[str, Any]]: ...

    def kept(self, feed: Feed) -> Mapping[Key, torch.Tensor] | None: ...

    def forward(self, function: Callable[..., Any], call: Call, reader: Reader) -> None: ...


@dataclass
class _WantedCalls:
    """Which taps to read at one module: by call, then by suffix, their keys."""

    given: dict[int, dict[str, Key]] = field(default_factory=dict)
    returned: dict[int, dict[str, Key]] = field(default_factory=dict)

    @property
    def only(self) -> dict[int, Key]:
        """By call, the key of what it returns first, where nothing else is wanted of it."""
        alone = ((call, wanted) for call, wanted in self.returned.items() if list(wanted) == [""])
        return {call: wanted[""] for call, wanted in alone}


class Reader:
    """Hears the modules of which something is wanted, and copies that. What is done here for each
    call is what a tap costs."""

    def __init__(self, catalog: Catalog, keys: Sequence[Key], traced: Traced) -> None:
        self.values: dict[Key, torch.Tensor] = {}
        self._counts: dict[int, int] = {}
        self._wanted: dict[int, _WantedCalls] = {}
        self._recorded = {key for key in keys if key.is_recorded}
        self._inputs = {key.suffix: key for key in keys if key.slot == INPUT}
        self._outputs = {key.suffix: key for key in keys if key.slot == OUTPUT}
        self._open = OpenCalls(catalog)
        for key in keys:
            if key.slot >= 0 and not key.is_recorded:
                wanted = self._wanted.setdefault(key.slot, _WantedCalls())
                calls = wanted.given if key.is_argument else wanted.returned
                calls.setdefault(key.call, {})[key.suffix] = key
        # A value that is recorded belongs to the innermost call: those that record are all heard.
        for slot in traced.recording if self._recorded else ():
            if catalog.slots[slot].name:
                self._wanted.setdefault(slot, _WantedCalls())
        self.modules = {id(catalog.slots[slot].module): slot for slot in self._wanted}
        self._only = {slot: wanted.only for slot, wanted in self._wanted.items()}

    def begin(self, named: Mapping[str, Any]) -> None:
        """A batch begins, with these arguments; the last one is forgotten."""
        self.values.clear()
        self._counts.clear()
        self._open.reset()
        for name, leaf in input_leaves(named) if self._inputs else ():
            self._keep(self._inputs, name, leaf)

    def taken(self) -> dict[Key, torch.Tensor]:
        """What the batch gave; it is nobody else's from now on."""
        values, self.values = self.values, {}
        return values

    def finished(self, output: Any) -> None:
        """The network has returned ``output``, and is not put back yet."""
        for suffix, leaf in output_leaves(output) if self._outputs else ():
            self._keep(self._outputs, suffix, leaf)

    def enter(self, slot: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, int]:
        call = self._counts.get(slot, 0)
        self._counts[slot] = call + 1
        if self._recorded:
            self._open.enter((slot, call))
        given = self._wanted[slot].given
        if given:
            wanted = given.get(call, {})
            for suffix, leaf in argument_leaves(args, kwargs):
                self._keep(wanted, suffix, leaf)
        return slot, call

    def leave(self, token: tuple[int, int], output: Any) -> None:
        slot, call = token
        if self._recorded:
            self._open.leave(token)
        key = self._only[slot].get(call)
        if key is not None and type(output) is torch.Tensor and not is_transformed(output):
            self.values[key] = snapshot(output)
            return
        wanted = self._wanted[slot].returned.get(call, {})
        for suffix, leaf in output_leaves(output) if wanted else ():
            self._keep(wanted, suffix, leaf)

    def failed(self, token: tuple[int, int]) -> None:
        if self._recorded:
            self._open.leave(token)

    @property
    def record(self) -> Callable[[str, Any], None] | None:
        """What hears of recorded values, if any is wanted."""
        return self._record if self._recorded else None

    def _record(self, name: str, value: Any) -> None:
        for key, leaf in self._open.recorded(name, value):
            if key in self._recorded:
                self.values[key] = snapshot(leaf)

    def _keep(self, wanted: Mapping[str, Key], suffix: str, tensor: torch.Tensor) -> None:
        key = wanted.get(suffix)
        if key is not None and not is_transformed(tensor):
            self.values[key] = snapshot(tensor)


class TapPass:
    """Runs one batch and emits ``taps`` in order; what did not occur in it is not emitted.

    Raises FeedError for a feed that does not fit ``forward``, RuntimeFailure when it fails, and
    RunError when the network was closed, or its modules are no longer those that were found.
    """

    def __init__(
        self, network: Network, taps: Sequence[TapPoint], keys: Sequence[Key], traced: Traced
    ) -> None:
        self.network = network
        self.taps = taps
        self.keys = keys
        self.reader = Reader(network.catalog, keys, traced)
        self._present: set[Key] = set()
        self.parts = _parts(network.catalog.root, keys, traced)

    def __call__(self, feed: Feed, emit: Emit) -> None:
        values = self.network.kept(feed)
        if values is not None:
            self._present |= values.keys()
        else:
            values = self.read(feed)
        for tap, key in zip(self.taps, self.keys, strict=True):
            if key in values:
                emit(tap, self._array(tap, values[key])[None])

    def read(self, feed: Feed) -> Mapping[Key, torch.Tensor]:
        """Copies of the values that appeared, by key."""
        call, named = self.network.bind(feed)
        self.reader.begin(named)
        try:
            self.network.forward(self._function(), call, self.reader)
        finally:
            values = self.reader.taken()
        missing, self._present = self._present - values.keys(), self._present | values.keys()
        if missing and not self.network.catalog.is_current():
            raise RunError(
                "modules were added, removed or replaced since the model was opened",
                hint="open it again",
            )
        return values

    def _function(self) -> Callable[..., Any]:
        """What to call: the network, or its beginning where the rest is not needed."""
        root = self.network.catalog.root
        if self.parts and isinstance(root, nn.Sequential) and not has_hooks(root):
            return _beginning(root, self.parts)
        return root

    def _array(self, tap: TapPoint, tensor: torch.Tensor) -> Array:
        try:
            return to_array(tensor)
        except Untappable as error:
            raise Untappable(f"{tap.name!r}: {error.message}", hint=error.hint) from error


def _parts(root: nn.Module, keys: Sequence[Key], traced: Traced) -> int:
    """How many parts of ``root`` are needed for the values at ``keys``, if it is a sequence that
    can be left there with nothing begun and not ended; else 0."""
    if type(root) is not nn.Sequential or any(key.slot == OUTPUT for key in keys):
        return 0
    needed = max((traced.parts.get(key, len(root)) for key in keys), default=0)
    return needed if needed < len(root) else 0


def _beginning(sequence: nn.Sequential, parts: int) -> Callable[[Any], Any]:
    """What a call of ``sequence`` does, as far as its first ``parts``."""

    def forward(value: Any) -> Any:
        for part in islice(sequence, parts):
            value = part(value)
        return value

    return forward
