"""The calls of a network's modules while it runs, and the values that appear in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from threading import RLock, get_ident
from typing import Any, NamedTuple

import torch

from layertap.runtimes.torch.catalog import Catalog, Slot
from layertap.runtimes.torch.graph import Key, base_name, recorded_name
from layertap.runtimes.torch.leaves import argument_leaves, output_leaves


class OpenCalls:
    """The calls that have begun and not ended, in each thread: where a value belongs that is
    recorded now."""

    def __init__(self, catalog: Catalog) -> None:
        root = next(slot.index for slot in catalog.slots if not slot.name)
        self._root = root, 0
        self.reset()

    def reset(self) -> None:
        self._calls: dict[int, list[tuple[int, int]]] = {}
        self._counts: dict[tuple[int, int, str], int] = {}

    def enter(self, call: tuple[int, int]) -> None:
        thread = get_ident()
        calls = self._calls.get(thread)
        if calls is None:
            calls = self._calls[thread] = []
        calls.append(call)

    def leave(self, call: tuple[int, int]) -> None:
        calls = self._calls.get(get_ident(), [])
        if call in calls:
            del calls[calls.index(call) :]

    def recorded(self, name: str, value: Any) -> Iterator[tuple[Key, torch.Tensor]]:
        """The keys of the tensors in ``value``: ``/name``, then ``/name.1`` in the same call."""
        calls = self._calls.get(get_ident())
        slot, call = calls[-1] if calls else self._root
        number = self._counts.get((slot, call, name), 0)
        self._counts[slot, call, name] = number + 1
        local = f"/{name}.{number}" if number else f"/{name}"
        for suffix, leaf in output_leaves(value):
            yield Key(slot, call, local + suffix), leaf


class Value(NamedTuple):
    """A value that appears in a call: the name that it would like, and the module."""

    key: Key
    wanted: str
    slot: Slot
    tensor: torch.Tensor


class Calls(ABC):
    """Hears the calls of modules, numbers them, and hands on every value that appears: what a call
    is given, what it returns, and what is recorded in it."""

    def __init__(
        self, catalog: Catalog, modules: Mapping[int, int], *, hears_given: bool = True
    ) -> None:
        self.slots = catalog.slots
        self.modules = modules
        self.hears_given = hears_given
        self.counts = [0] * len(catalog.slots)
        self.open = OpenCalls(catalog)
        self.lock = RLock()

    def enter(self, slot: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, int]:
        with self.lock:
            return self._enter(slot, args, kwargs)

    def leave(self, token: tuple[int, int], output: Any) -> None:
        with self.lock:
            self._leave(token, output)

    def failed(self, token: tuple[int, int]) -> None:
        with self.lock:
            self.open.leave(token)

    def _enter(
        self, slot: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[int, int]:
        token = slot, self.counts[slot]
        self.counts[slot] += 1
        self.open.enter(token)
        if self.hears_given:
            at = self.slots[slot]
            leaves = argument_leaves(args, kwargs)
            self.given(at, token[1], [_given(at, token[1], *leaf) for leaf in leaves])
        return token

    def _leave(self, token: tuple[int, int], output: Any) -> None:
        self.open.leave(token)
        slot, call = self.slots[token[0]], token[1]
        leaves = output_leaves(output)
        self.returned(slot, call, [_returned(slot, call, *leaf) for leaf in leaves])

    def record(self, name: str, value: Any) -> None:
        """Take in what the user's code records."""
        with self.lock:
            for key, leaf in self.open.recorded(name, value):
                slot = self.slots[key.slot]
                self.recorded(Value(key, recorded_name(slot, key), slot, leaf))

    @abstractmethod
    def given(self, slot: Slot, call: int, values: list[Value]) -> None:
        """What a call was given."""

    @abstractmethod
    def returned(self, slot: Slot, call: int, values: list[Value]) -> None:
        """What a call returned."""

    @abstractmethod
    def recorded(self, value: Value) -> None:
        """What was recorded."""


def _given(slot: Slot, call: int, suffix: str, tensor: torch.Tensor) -> Value:
    return Value(Key(slot.index, call, suffix), f"{base_name(slot, call)}:{suffix}", slot, tensor)


def _returned(slot: Slot, call: int, suffix: str, tensor: torch.Tensor) -> Value:
    return Value(Key(slot.index, call, suffix), base_name(slot, call) + suffix, slot, tensor)
