"""One prepared execution: run the network, read the taps, leave everything as it was.

A value is right if nothing wrote into its memory after the moment of its production. Copying
every value would ensure that, at the price of the copies. So the first batch is read with copies,
which are compared with what the tensors hold at the end: that tells which taps are overwritten
later (by ``ReLU(inplace=True)``, by ``x += y``), and these are copied from then on, as are those
that were seen to be written to when the graph was traced. The others are handed over as they are,
after a look at their version counters; if one moved after all, because this batch took another
branch, the batch is run again with that tap copied too.

A tensor that is handed over must belong to nobody else: references to the tensor and its storage
are counted, and what is shared (with a buffer, a cache, a view, another tap) is copied then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from sys import getrefcount
from typing import Any, Protocol

import torch

from layertap import recording
from layertap.core.dtypes import Array
from layertap.core.feeds import Feed
from layertap.core.graph import TapPoint
from layertap.core.protocols import Emit
from layertap.errors import RuntimeFailure, Untappable
from layertap.runtimes.torch.arrays import to_array
from layertap.runtimes.torch.catalog import Catalog, modes
from layertap.runtimes.torch.feeding import Arguments, look
from layertap.runtimes.torch.intercept import Interception, Listener, Wrap
from layertap.runtimes.torch.leaves import argument_leaves, output_leaves
from layertap.runtimes.torch.state import State, same_bits
from layertap.runtimes.torch.tracing import INPUT, OUTPUT, Key, OpenCalls, Traced


class Stop(BaseException):
    """Ends a forward pass after the last tap.

    Not an Exception, so that ``except Exception`` in a model does not take it for a failure. Where
    a model swallows it all the same, the pass merely goes on to its end.
    """


class Network(Protocol):
    """What a pass needs to know of its session."""

    catalog: Catalog
    arguments: Arguments
    state: State

    def mode(self) -> AbstractContextManager[object]: ...

    def check_open(self) -> None: ...


Record = tuple[int, torch.Tensor, int]
"""Number of the tap, its value, and the value's version or COPIED."""

COPIED = -1


@dataclass
class Wanted:
    """Which taps to read at one module: by call, then by suffix, their numbers in the pass."""

    arguments: dict[int, dict[str, int]] = field(default_factory=dict)
    outputs: dict[int, dict[str, int]] = field(default_factory=dict)


class Recorder:
    """Listens to the modules of one pass and keeps the values that are wanted."""

    def __init__(
        self, catalog: Catalog, taps: Sequence[TapPoint], keys: Sequence[Key], traced: Traced
    ) -> None:
        self.taps = taps
        self.wanted: dict[int, Wanted] = {}
        self.overwritten = [key in traced.overwritten for key in keys]
        self.copy = [True] * len(keys)
        self.seen = [False] * len(keys)
        self.records: list[Record] = []
        self.calls: dict[int, int] = {}
        self.learning: dict[int, tuple[torch.Tensor, int]] | None = None
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
        inside = sum(key.slot >= 0 for key in keys)
        # Where nothing is called after the last tap, stopping costs more than it saves.
        to_the_end = any(key.slot == OUTPUT for key in keys) or traced.final in keys
        self.last = -1 if to_the_end else inside
        listeners = [self._listener(catalog, slot, slot in traced.once) for slot in self.wanted]
        self.listening = Interception(listeners, catalog.fused)

    def recording(self) -> AbstractContextManager[None]:
        """Hear what is recorded, if that is wanted."""
        return recording.listening(self._hear) if self.recorded else nullcontext()

    def _hear(self, name: str, value: Any) -> None:
        for key, leaf in self.open.recorded(name, value):
            if key in self.recorded:
                self._record(self.recorded[key], leaf)

    def reset(self) -> None:
        if self.recorded:
            self.open.reset()
        self.records.clear()
        self.seen[:] = [False] * len(self.seen)
        self.calls = dict.fromkeys(self.wanted, 0)

    def _listener(self, catalog: Catalog, slot: int, once: bool) -> Listener:
        wanted = self.wanted[slot]

        def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
            call = self.calls[slot]
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

        plain = (
            once
            and not self.recorded
            and not wanted.arguments
            and list(wanted.outputs.get(0, ())) == [""]
        )
        wrap = self._shortcut(wanted.outputs[0][""]) if plain else None
        return Listener(catalog.slots[slot].module, enter, leave, wrap)

    def _shortcut(self, number: int) -> Wrap:
        """For the usual case, one call that returns one tensor: what the general way does, in as
        few steps as possible, since they are what a tap costs."""
        records, copy, seen, last = self.records, self.copy, self.seen, self.last

        def wrap(forward: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                output = forward(*args, **kwargs)
                if type(output) is not torch.Tensor or self.learning is not None:
                    self.outputs(output, {"": number})
                elif not seen[number]:
                    seen[number] = True
                    if copy[number] or output.is_inference():
                        records.append((number, output.clone(), COPIED))
                    else:
                        records.append((number, output, output._version))
                    if len(records) == last:
                        raise Stop
                return output

            return call

        return wrap

    def outputs(self, output: Any, wanted: dict[str, int]) -> None:
        """Take in what a module, or the network, returned."""
        for suffix, leaf in output_leaves(output) if wanted else ():
            if suffix in wanted:
                self._record(wanted[suffix], leaf)

    def _record(self, number: int, tensor: torch.Tensor) -> None:
        if self.seen[number]:
            return  # a further call than when it was traced
        self.seen[number] = True
        if self.copy[number] or tensor.is_inference():
            self.records.append((number, tensor.detach().clone(), COPIED))
            if self.learning is not None:
                version = COPIED if tensor.is_inference() else tensor._version
                self.learning[number] = tensor, version
        else:
            self.records.append((number, tensor, tensor._version))
        if len(self.records) == self.last:
            raise Stop

    def copy_all(self) -> None:
        """Copy every value of the next batch, and keep the tensors to compare the copies with."""
        self.copy[:] = [True] * len(self.copy)
        self.learning = {}

    def learn(self) -> None:
        """Tell from this batch, read with copies, which taps need one."""
        assert self.learning is not None
        for number, copy, _ in self.records:
            if number in self.learning:
                tensor, version = self.learning[number]
                moved = not _unmoved(tensor, version) or not same_bits(tensor, copy)
                self.copy[number] = moved or self.overwritten[number]
        self.learning = None

    def moved(self) -> bool:
        """Whether a value that was not copied has been written to; it is copied from now on."""
        late = [n for n, tensor, v in self.records if v != COPIED and tensor._version != v]
        for number in late:
            self.copy[number] = True
        return bool(late)

    def take(self) -> dict[int, Array]:
        """The values, each an array of its own, by the taps' numbers."""
        arrays: dict[int, Array] = {}
        records = self.records
        while records:
            number, tensor, version = records.pop()
            try:
                if version == COPIED:
                    arrays[number] = tensor.numpy()
                    continue
                storage = tensor.untyped_storage()
                # Of several taps that hold one tensor, the last to be taken is its only owner.
                if (
                    getrefcount(tensor) > _OWN_REFERENCES
                    or _storage_use_count(storage._cdata) > _OWN_STORAGE
                    or tensor._use_count() > 1  # type: ignore[attr-defined]
                ):
                    arrays[number] = tensor.clone().numpy()
                    self.copy[number] = True  # from now on when it is produced, still in the cache
                    continue
                array = tensor.numpy()
                whole = array.nbytes >= storage.nbytes()
                arrays[number] = array if whole else array.copy()
            except (TypeError, RuntimeError):
                arrays[number] = self._convert(number, tensor)
        return arrays

    def _convert(self, number: int, tensor: torch.Tensor) -> Array:
        """The value of a tensor that ``Tensor.numpy`` does not take as it is."""
        try:
            return to_array(tensor.detach().clone())
        except Untappable as error:
            name = self.taps[number].name
            raise Untappable(f"{name!r}: {error.message}", hint=error.hint) from error


_OWN_REFERENCES = 2
"""References to a tensor that one local variable holds, while ``getrefcount`` looks."""

_storage_use_count: Callable[[int], int] = torch._C._storage_Use_Count

_OWN_STORAGE = 2
"""References to a storage that one tensor holds, while a Python object looks."""


def _unmoved(tensor: torch.Tensor, version: int) -> bool:
    return version == COPIED or tensor._version == version


_MOST_QUIET = 1000
"""Kinds of feeds that a pass remembers as changing nothing; further ones are looked after."""


class TapPass:
    """Runs one batch and emits ``taps`` in order; what did not occur in it is not emitted.

    Raises FeedError for a feed that does not fit ``forward``, RuntimeFailure when it fails.
    """

    def __init__(
        self,
        network: Network,
        taps: Sequence[TapPoint],
        keys: Sequence[Key],
        traced: Traced,
    ) -> None:
        self.network = network
        self.taps = taps
        self.recorder = Recorder(network.catalog, taps, keys, traced)
        self.static = traced.static
        stops = self.recorder.last >= 0
        self.moody = network.catalog.moody(traced.later_than(keys) if stops else ())
        self.quiet: set[object] = set()
        self.input_taps = {k.suffix: n for n, k in enumerate(keys) if k.slot == INPUT}
        self.output_taps = {k.suffix: n for n, k in enumerate(keys) if k.slot == OUTPUT}
        self.learned: list[bool] | None = None

    def __call__(self, feed: Feed, emit: Emit) -> None:
        self.network.check_open()
        arrays = self._read(feed)
        for number, tap in enumerate(self.taps):
            if number in arrays:
                emit(tap, arrays.pop(number))

    def _read(self, feed: Feed) -> dict[int, Array]:
        now = modes(self.moody)
        if now != self.learned:
            self.quiet.clear()
            arrays = self._learn(feed)
            self.learned = now
        elif (like := look(feed)) in self.quiet:
            self._execute(feed)
            arrays = self._settle(feed) if self.recorder.moved() else self.recorder.take()
        else:
            arrays = self._settle(feed, like)
        return {**self._inputs(feed), **arrays} if self.input_taps else arrays

    def _learn(self, feed: Feed) -> dict[int, Array]:
        """Read with copies of everything, and find out what needs them."""
        self.recorder.copy_all()
        with self.network.state.kept(learn=True):
            self._execute(feed)
            self.recorder.learn()
            return self.recorder.take()

    def _settle(self, feed: Feed, like: object = None) -> dict[int, Array]:
        """Read, again if need be, and bring the state back. Where control flow does not depend on
        values, a pass that changed nothing tells that those like it need no such care."""
        with self.network.state.kept() as saved:
            self._execute(feed)
            while self.recorder.moved():
                saved.restore()
                self._execute(feed)
            arrays = self.recorder.take()
            if self.static and len(self.quiet) < _MOST_QUIET and not saved.moved():
                self.quiet.add(like)
        return arrays

    def _execute(self, feed: Feed) -> None:
        network, recorder = self.network, self.recorder
        recorder.reset()
        args, kwargs = network.arguments.bind(feed)
        try:
            with network.mode(), recorder.listening, recorder.recording():
                output = network.catalog.root(*args, **kwargs)
                if self.output_taps:
                    recorder.outputs(output, self.output_taps)
        except Stop:
            return
        except Exception as error:
            raise RuntimeFailure(
                f"the forward pass failed: {type(error).__name__}: {error}",
                hint="does the model run on this input without layertap?",
            ) from error

    def _inputs(self, feed: Feed) -> dict[int, Array]:
        if not self.input_taps:
            return {}
        arguments = self.network.arguments
        leaves = (
            (name + suffix, leaf)
            for name, value in arguments.named(*arguments.bind(feed)).items()
            for suffix, leaf in output_leaves(value)
        )
        found = [(self.input_taps[name], leaf) for name, leaf in leaves if name in self.input_taps]
        return {number: to_array(leaf) for number, leaf in found}
