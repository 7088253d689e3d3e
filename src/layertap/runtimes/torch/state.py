"""What a forward pass may write to, and how that is put back.

Reading a value must not move parameters, buffers, running statistics, modes or random generators:
every batch starts from the state in which it found the module, and leaves it there, so that batches
do not depend on one another. Python attributes, and whatever lies outside of the module, are as
after any other call.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter, is_
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from layertap.errors import RuntimeFailure
from layertap.runtimes.torch import internals
from layertap.runtimes.torch.arrays import memory
from layertap.runtimes.torch.snapshots import Snapshot


class Generators:
    """The random generators that a network may draw from, as they were; ``before`` is how they were
    another time, which saves looking at what has not changed."""

    def __init__(self, devices: Iterable[torch.device], before: Generators | None = None) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = [(device, torch.cuda.get_rng_state(device)) for device in devices]
        self.python = random.getstate()
        self.drawn = _numpy_memory()
        same = before is not None and before.settled and before.drawn == self.drawn
        # To get and set NumPy's takes more time than everything else here.
        self.numpy: Any = before.numpy if before and same else np.random.get_state(legacy=False)

    @property
    def settled(self) -> bool:
        """Whether NumPy's generator cannot change without its memory changing: it keeps no second
        normal number ready."""
        return self.drawn is not None and not self.numpy["has_gauss"]

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        for device, state in self.cuda:
            torch.cuda.set_rng_state(state, device)
        random.setstate(self.python)
        if not self.settled or _numpy_memory() != self.drawn:
            np.random.set_state(self.numpy)


_MT19937_BYTES = 624 * 4 + 4
"""The state of NumPy's usual generator: 624 words and a position (Matsumoto, Nishimura 1998)."""


def _numpy_memory() -> bytes | None:
    """The memory of NumPy's generator, which changes when a number is drawn; None where it is
    another generator."""
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if not isinstance(generator, np.random.MT19937):
        return None
    return ctypes.string_at(generator.ctypes.state_address, _MT19937_BYTES)


class Cell:
    """One tensor of a module: who holds it under which name."""

    __slots__ = ("key", "owner", "tensor")

    def __init__(self, owner: dict[str, Any], key: str, tensor: torch.Tensor) -> None:
        self.owner, self.key, self.tensor = owner, key, tensor

    def put_back(self) -> None:
        """The very tensor that was there."""
        if self.owner.get(self.key) is not self.tensor:
            self.owner[self.key] = self.tensor


_version: Callable[[torch.Tensor], int] = attrgetter("_version")
_training: Callable[[nn.Module], bool] = attrgetter("training")


class State:
    """What of ``root`` is put back after each batch.

    Buffers are copied before each. Parameters are not, for their size, but for those to which some
    batch was seen to write: the first batch is looked at operation by operation, and copied before
    the first write; the versions of all are compared after each later one.

    ``frozen`` tells that there are tensors made in inference mode, which can be written to in that
    mode only. ``advance``: random generators move on, as in plain calls.
    """

    def __init__(self, root: nn.Module, *, advance: bool = False) -> None:
        self.root, self.advance = root, advance
        self.modules = list(root.modules())
        self.cells = list(_cells(self.modules))
        self.parameters = [c for c in self.cells if isinstance(c.tensor, nn.Parameter)]
        self.buffers = [c for c in self.cells if not isinstance(c.tensor, nn.Parameter)]
        tensors = [cell.tensor for cell in self.cells]
        self._owners = [cell.owner for cell in self.cells]
        self._keys = [cell.key for cell in self.cells]
        self.frozen = any(tensor.is_inference() for tensor in tensors)
        self.devices = {tensor.device for tensor in tensors if tensor.is_cuda}
        self.counted = [c.tensor for c in self.parameters if not c.tensor.is_inference()]
        self.owned = tensors
        # Tensors that share the memory as it is, to give a parameter its own back.
        self.aliases = [c.tensor.detach() for c in self.parameters]
        self.pointers = self._pointers()
        self.written: set[int] = set()
        self.generators: Generators | None = None
        self._by_memory: dict[int, list[Cell]] = {}
        for cell in self.parameters:
            self._by_memory.setdefault(memory(cell.tensor), []).append(cell)

    def _pointers(self) -> list[int]:
        return [cell.tensor.data_ptr() for cell in self.parameters]

    def is_current(self) -> bool:
        """Whether the module still holds the very tensors that were found, each with the memory
        that it had."""
        same = all(map(is_, map(dict.get, self._owners, self._keys), self.owned))
        return same and self._pointers() == self.pointers

    def put_back(self) -> None:
        """Give the module its tensors back, and these their memory."""
        for cell in self.cells:
            cell.put_back()
        for cell, alias in zip(self.parameters, self.aliases, strict=True):
            if cell.tensor.data_ptr() != alias.data_ptr():
                cell.tensor.data = alias

    def save(self) -> Saved:
        """The state before a batch."""
        return Saved(self)

    def cells_at(self, tensor: torch.Tensor) -> list[Cell]:
        """The parameters that share the memory of ``tensor``."""
        return self._by_memory.get(memory(tensor), []) if memory(tensor) else []


class Saved:
    """The state as it was before a batch. :meth:`restore` brings it back."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.training = [*map(_training, state.modules)]
        written = [cell for cell in state.parameters if id(cell.tensor) in state.written]
        tensors = [cell.tensor for cell in (*state.buffers, *written)]
        self.kept = set(map(id, tensors))
        self.snapshots = [Snapshot(tensors)]
        self.versions = [*map(_version, state.counted)]
        self.lost = False
        self.generators = None
        if not state.advance:
            self.generators = Generators(state.devices, state.generators)
            state.generators = self.generators

    def before_write(self, tensor: torch.Tensor) -> None:
        """An operation is about to write to ``tensor``."""
        for cell in self.state.cells_at(tensor):
            if id(cell.tensor) not in self.state.written:
                self.state.written.add(id(cell.tensor))
                self.kept.add(id(cell.tensor))
                self.snapshots.append(Snapshot([cell.tensor]))

    def restore(self) -> None:
        """Bring everything back of which there is a copy."""
        state = self.state
        self.lost = self._unforeseen()
        if self.generators is not None:
            self.generators.restore()
        if [*map(_training, state.modules)] != self.training:
            for module, training in zip(state.modules, self.training, strict=True):
                module.training = training
        if not state.is_current():
            state.put_back()
        with torch.inference_mode(state.frozen), torch.no_grad():
            for snapshot in self.snapshots:
                snapshot.restore()

    def check(self) -> None:
        """Raise RuntimeFailure where a parameter was written to that had never been before, so that
        there is no copy."""
        if self.lost:
            raise RuntimeFailure(
                "the forward pass wrote to a parameter as no batch before it did, and its former "
                "values are gone",
                hint="let the first batch be one in which this happens: every later write is put "
                "back then",
            )

    def _unforeseen(self) -> bool:
        """Whether a parameter was written to that is not among the copies."""
        counted = self.state.counted
        now = [*map(_version, counted)]
        if now == self.versions:
            return False
        moved = {
            id(tensor)
            for tensor, before, after in zip(counted, self.versions, now, strict=True)
            if before != after
        }
        self.state.written |= moved
        return not moved <= self.kept


def _cells(modules: Iterable[nn.Module]) -> Iterator[Cell]:
    """The tensors that ``modules`` hold, as far as they have values."""
    for module in modules:
        for owner, key, tensor in internals.held_tensors(module):
            if not is_lazy(tensor) and not tensor.is_meta:
                yield Cell(owner, key, tensor)
