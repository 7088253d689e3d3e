"""Keeps the values of one forward pass, and tells which of them must be copied.

A value is right if nothing wrote into its memory after the moment of its production. Copying
every value would ensure that, at the price of the copies. So the first batch is read with copies,
which are compared with what the tensors hold at the end: that tells which taps are overwritten
later (by ``ReLU(inplace=True)``, by ``x += y``), and these are copied from then on, as are those
that were seen to be written to when the graph was traced. The others are handed over as they are,
after a look at their version counters.

A tensor that is handed over must belong to nobody else: references to its storage are counted, and
what is shared (with a buffer, a cache, a view) is copied then. Several taps that hold one tensor,
as a block and its last module do, become one array, which cannot be written to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from layertap import recording
from layertap.core.dtypes import Array
from layertap.core.graph import TapPoint
from layertap.errors import Untappable
from layertap.runtimes.torch.arrays import storage_address, storage_use_count, to_array
from layertap.runtimes.torch.catalog import Catalog
from layertap.runtimes.torch.intercept import (
    Around,
    Interception,
    Listener,
    Stop,
    Wrap,
    is_plain,
)
from layertap.runtimes.torch.leaves import argument_leaves, output_leaves
from layertap.runtimes.torch.sequence import Keep, by_parts, parts_until
from layertap.runtimes.torch.state import same_bits
from layertap.runtimes.torch.tracing import OUTPUT, Key, OpenCalls, Traced

Record = tuple[Any, int]
"""A tap's value, and the tensor's version, or COPIED."""

COPIED = -1
"""In place of a version: the tensor is a copy."""


@dataclass
class Wanted:
    """Which taps to read at one module: by call, then by suffix, their numbers in the pass."""

    arguments: dict[int, dict[str, int]] = field(default_factory=dict)
    outputs: dict[int, dict[str, int]] = field(default_factory=dict)

    @property
    def single(self) -> dict[int, int]:
        """The numbers by call, where nothing is wanted of any but the one tensor it returns."""
        if self.arguments or any(list(wanted) != [""] for wanted in self.outputs.values()):
            return {}
        return {call: wanted[""] for call, wanted in self.outputs.items()}


class Route(NamedTuple):
    """How to go through the network: what to call, with what around it, and after how many values
    to stop; -1 to go to the end."""

    function: Callable[..., Any]
    around: Around
    last: int


class Recorder:
    """Listens to the modules of one pass and keeps the values that are wanted.

    Taps go by their numbers in the pass. What is done here for each of them is what a tap costs.
    """

    def __init__(
        self, catalog: Catalog, taps: Sequence[TapPoint], keys: Sequence[Key], traced: Traced
    ) -> None:
        self.taps = taps
        self.static = traced.static
        self.wanted: dict[int, Wanted] = {}
        self.overwritten = [key in traced.overwritten for key in keys]
        self.copy = [True] * len(keys)
        self.records: dict[int, Record] = {}
        self.calls: dict[int, int] = {}
        self.learning: dict[int, Record] | None = None
        self.further: dict[int, list[int]] = {}
        self.recorded: dict[Key, int] = {}
        self.open = OpenCalls(catalog)
        for number, key in enumerate(keys):
            if key.is_recorded:
                self.recorded[key] = number
            elif key.slot >= 0:
                wanted = self.wanted.setdefault(key.slot, Wanted())
                calls = wanted.arguments if key.is_argument else wanted.outputs
                calls.setdefault(key.call, {})[key.suffix] = number
        # A value that is recorded belongs to the innermost call: those that record are all heard.
        for slot in traced.recording if self.recorded else ():
            if catalog.slots[slot].name:
                self.wanted.setdefault(slot, Wanted())
        # Where nothing is called after the last tap, stopping costs more than it saves.
        self.stops = not (any(key.slot == OUTPUT for key in keys) or traced.final in keys)
        self.last = -1
        self.of_network = {k.suffix: n for n, k in enumerate(keys) if k.slot == OUTPUT}
        self.keep = self._keeper()
        listeners = [self._listener(catalog, slot, slot in traced.once) for slot in self.wanted]
        last = sum(key.slot >= 0 for key in keys) if self.stops else -1
        self.whole = self._route(catalog, catalog.root, listeners, last)
        self.by_parts: Route | None = None
        if type(catalog.root) is nn.Sequential and traced.static and not self.recorded:
            self.by_parts = self._by_parts(catalog.root, catalog, keys, traced, listeners)
            self.modules, self.length = catalog.root._modules, len(catalog.root)
            self.own = catalog.root.__dict__

    def _by_parts(
        self,
        network: nn.Sequential,
        catalog: Catalog,
        keys: Sequence[Key],
        traced: Traced,
        listeners: Sequence[Listener],
    ) -> Route:
        """The route through ``network``, the root, where only what lies inside of its parts is
        listened to."""
        numbers = self._returned(catalog, traced)
        rest = [listener for listener in listeners if listener.module not in numbers]
        count = parts_until(network, catalog, keys, traced) if self.stops else 0
        parts = by_parts(
            network, count or len(network), numbers, self.copy, self.records, self.keep
        )
        return self._route(catalog, parts, rest, -1 if count else self.whole.last)

    def _returned(self, catalog: Catalog, traced: Traced) -> dict[nn.Module, int]:
        """The parts of a sequence of which no more is wanted than the tensor that they return,
        with its number."""
        parts, slots = set(catalog.root.children()), catalog.slots
        once = {
            slots[s].module: wanted.single for s, wanted in self.wanted.items() if s in traced.once
        }
        return {
            module: numbers[0] for module, numbers in once.items() if numbers and module in parts
        }

    def _route(
        self,
        catalog: Catalog,
        function: Callable[..., Any],
        listeners: Collection[Listener],
        last: int,
    ) -> Route:
        around = Interception(listeners, catalog.fused).around if listeners else _plainly
        if self.recorded or self.of_network:
            around = partial(self._heard, around)
        return Route(function, around, last)

    def begin(self) -> tuple[Callable[..., Any], Around]:
        """Forget the last pass. Returns what to call in the next one, and with what around it."""
        if self.records or self.calls:
            self.records.clear()
            self.calls.clear()
        route = self.by_parts
        if route is None or len(self.modules) != self.length or not is_plain(self.own):
            route = self.whole
        function, around, self.last = route
        return function, around

    def _heard(
        self, around: Around, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """``around``, where values are recorded, too, or are those of the network itself."""
        self.open.reset()
        with recording.listening(self._hear) if self.recorded else nullcontext():
            output = around(function, args, kwargs)
        self.outputs(output, self.of_network)
        return output

    def _hear(self, name: str, value: Any) -> None:
        for key, leaf in self.open.recorded(name, value):
            if key in self.recorded:
                self._record(self.recorded[key], leaf)

    def _listener(self, catalog: Catalog, slot: int, once: bool) -> Listener:
        wanted = self.wanted[slot]

        def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
            call = self.calls.get(slot, 0)
            self.calls[slot] = call + 1
            if self.recorded:
                self.open.enter(slot, call)
            if call in wanted.arguments:
                suffixes = wanted.arguments[call]
                for suffix, leaf in argument_leaves(args, kwargs):
                    if suffix in suffixes:
                        self._record(suffixes[suffix], leaf)
            return call

        def leave(call: int, output: Any) -> None:
            if self.recorded:
                self.open.leave(slot, call)
            self.outputs(output, wanted.outputs.get(call, {}))

        numbers = {} if self.recorded else wanted.single
        wrap: Wrap | None = None
        if numbers:
            wrap = self._once(numbers[0]) if once else self._often(slot, numbers)
        return Listener(catalog.slots[slot].module, enter, leave, wrap)

    def _keeper(self) -> Keep:
        """What takes in the usual output, one tensor: what the general way does, in as few steps
        as possible."""
        records, copy, plain = self.records, self.copy, torch.Tensor

        def keep(number: int, output: Any) -> None:
            if type(output) is not plain or self.learning is not None:
                self.outputs(output, {"": number})
            elif number not in records:
                try:
                    records[number] = (
                        (output.clone(), COPIED) if copy[number] else (output, output._version)
                    )
                except RuntimeError:  # made in inference mode, where versions are not counted
                    records[number] = output.clone(), COPIED
                if len(records) == self.last:
                    raise Stop

        return keep

    def _once(self, number: int) -> Wrap:
        """For one call that returns one tensor."""
        keep = self.keep

        def wrap(forward: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                output = forward(*args, **kwargs)
                keep(number, output)
                return output

            return call

        return wrap

    def _often(self, slot: int, numbers: Mapping[int, int]) -> Wrap:
        """For several calls that return one tensor each; ``numbers`` of the taps by call."""
        calls, keep = self.calls, self.keep

        def wrap(forward: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nth = calls.get(slot, 0)
                calls[slot] = nth + 1
                output = forward(*args, **kwargs)
                if nth in numbers:
                    keep(numbers[nth], output)
                return output

            return call

        return wrap

    def outputs(self, output: Any, wanted: dict[str, int]) -> None:
        """Take in what a module, or the network, returned."""
        for suffix, leaf in output_leaves(output) if wanted else ():
            if suffix in wanted:
                self._record(wanted[suffix], leaf)

    def _record(self, number: int, tensor: torch.Tensor) -> None:
        if number in self.records:
            return  # a further call than when it was traced
        if self.learning is not None:
            self.records[number] = tensor.clone(), COPIED
            self.learning[number] = tensor, COPIED if tensor.is_inference() else tensor._version
        elif self.copy[number] or tensor.is_inference():
            self.records[number] = tensor.clone(), COPIED
        else:
            self.records[number] = tensor, tensor._version
        if len(self.records) == self.last:
            raise Stop

    def copy_all(self) -> None:
        """Copy every value of the next batch, and keep the tensors to compare the copies with."""
        self.copy[:] = [True] * len(self.copy)
        self.learning = {}

    def _learn(self, learning: dict[int, Record]) -> None:
        """Tell from this batch, read with copies, which taps need one."""
        written = {number: self._is_written(number, *kept) for number, kept in learning.items()}
        same: dict[int, list[int]] = {}
        for number, needed in written.items():
            self.copy[number] = needed
            if not needed:
                same.setdefault(id(learning[number][0]), []).append(number)
        self.further = {numbers[-1]: numbers[:-1] for numbers in same.values() if numbers[1:]}
        aliases = {numbers[-1]: learning[numbers[-1]][0].detach() for numbers in same.values()}
        self.learning = None
        learning.clear()
        while aliases:
            number, alias = aliases.popitem()
            if not _is_own(alias):
                self.copy[number] = True
                for other in self.further.pop(number, ()):
                    self.copy[other] = True

    def _is_written(self, number: int, tensor: torch.Tensor, version: int) -> bool:
        """Whether something was, or is known to be, written to a value after its moment."""
        moved = version != COPIED and tensor._version != version
        moved = moved or self.overwritten[number]
        return moved or not same_bits(tensor, self.records[number][0])

    def take(self) -> dict[int, Array] | None:
        """The values by the taps' numbers, each an array of its own or a read-only one of several.

        None if something was written into a value that was not copied: the pass is to be run
        again, and that value is copied from now on.
        """
        if self.learning is not None:
            self._learn(self.learning)
        arrays: dict[int, Array] = {}
        records, copy, late = self.records, self.copy, False
        while records:
            number, (tensor, version) = records.popitem()
            try:
                if version == COPIED:
                    arrays[number] = tensor.numpy()
                elif tensor._version != version:
                    copy[number] = late = True
                else:
                    array, address = tensor.numpy(), storage_address(tensor)
                    further = self._same(number, tensor) if number in self.further else None
                    del tensor  # now nobody has its memory but the array, and whoever else kept it
                    kept = storage_use_count(address) > 1
                    if kept or not (self.static or _is_whole(array.base)):
                        array = array.copy()
                        copy[number] = True  # from now on when it appears, still in the cache
                    if further:
                        array.flags.writeable = False
                        arrays.update(dict.fromkeys(further, array))
                    arrays[number] = array
            except (TypeError, RuntimeError):
                arrays[number] = self._convert(number, tensor)
        return None if late else arrays

    def _same(self, number: int, tensor: torch.Tensor) -> list[int]:
        """Further taps that hold the tensor of ``number``, with its value of now. These are not
        taken for themselves then."""
        records, now = self.records, tensor._version
        others = [n for n in self.further[number] if n in records]
        others = [n for n in others if records[n][0] is tensor and records[n][1] == now]
        for other in others:
            del records[other]
        return others

    def _convert(self, number: int, tensor: torch.Tensor) -> Array:
        """The value of a tensor that ``Tensor.numpy`` does not take as it is."""
        try:
            return to_array(tensor.detach().clone())
        except Untappable as error:
            name = self.taps[number].name
            raise Untappable(f"{name!r}: {error.message}", hint=error.hint) from error


def _is_own(tensor: torch.Tensor) -> bool:
    """Whether nobody has the memory of ``tensor``, or a part of it, but this very object. An array
    of it would keep whoever else has it from resizing it."""
    try:
        return storage_use_count(storage_address(tensor)) == 1 and _is_whole(tensor)
    except (NotImplementedError, RuntimeError):
        return False


def _is_whole(tensor: torch.Tensor) -> bool:
    """Whether a tensor has its storage for itself, each element once."""
    try:
        return tensor.untyped_storage().nbytes() == tensor.nbytes
    except (NotImplementedError, RuntimeError):
        return False


def _plainly(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``around``, where nothing is to be heard."""
    return function(*args, **kwargs)
