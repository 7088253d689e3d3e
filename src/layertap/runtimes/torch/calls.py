"""The calls of a network's modules while it runs, and the values that appear in them."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from layertap.runtimes.torch.catalog import Catalog, Slot
from layertap.runtimes.torch.graph import Key, base_name, recorded_name
from layertap.runtimes.torch.leaves import argument_leaves, output_leaves


class _Stack(threading.local):
    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []


class OpenCalls:
    """The calls that have begun and not ended, in each thread: where a value belongs that is
    recorded now."""

    def __init__(self, catalog: Catalog) -> None:
        root = next(slot.index for slot in catalog.slots if not slot.name)
        self._root = root, 0
        self.reset()

    def reset(self) -> None:
        self._stack = _Stack()
        self._counts: dict[tuple[int, int, str], int] = {}

    def enter(self, slot: int, call: int) -> None:
        self._stack.calls.append((slot, call))

    def leave(self, slot: int, call: int) -> None:
        calls = self._stack.calls
        if (slot, call) in calls:
            del calls[calls.index((slot, call)) :]

    def recorded(self, name: str, value: Any) -> Iterator[tuple[Key, torch.Tensor]]:
        """The keys of the tensors in ``value``: ``/name``, then ``/name.1`` in the same call."""
        slot, call = self._stack.calls[-1] if self._stack.calls else self._root
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

    def __init__(self, catalog: Catalog, modules: Mapping[int, int]) -> None:
        self.slots = catalog.slots
        self.modules = modules
        self.counts = [0] * len(catalog.slots)
        self.open = OpenCalls(catalog)
        self.lock = threading.RLock()

    def enter(self, slot: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, int]:
        with self.lock:
            call = self.counts[slot]
            self.counts[slot] += 1
            self.open.enter(slot, call)
            at = self.slots[slot]
            self.given(
                at,
                call,
                [
                    Value(Key(slot, call, suffix), f"{base_name(at, call)}:{suffix}", at, leaf)
                    for suffix, leaf in argument_leaves(args, kwargs)
                ],
            )
        return slot, call

    def leave(self, token: tuple[int, int], output: Any) -> None:
        slot, call = token
        with self.lock:
            self.open.leave(slot, call)
            at = self.slots[slot]
            self.returned(
                at,
                call,
                [
                    Value(Key(slot, call, suffix), base_name(at, call) + suffix, at, leaf)
                    for suffix, leaf in output_leaves(output)
                ],
            )

    def failed(self, token: tuple[int, int]) -> None:
        with self.lock:
            self.open.leave(*token)

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
