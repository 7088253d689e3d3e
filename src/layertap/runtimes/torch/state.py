"""What running a network changes in it, and how to undo that.

Reading a value must not move running statistics, random generators, counters or caches, so every
pass starts from the state in which it found the network, and leaves it there.
"""

from __future__ import annotations

import random
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter, is_
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from layertap.errors import RuntimeFailure

_ATOMS = (
    str, bytes, int, float, complex, bool, type(None), type, torch.Tensor, np.ndarray, torch.dtype,
    torch.device, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, types.MethodType,
)  # fmt: skip

_MOST_OBJECTS = 100_000
_DEEPEST = 8
"""How far below a module Python objects of the user's own are followed."""


class Shadow:
    """A tensor, its version and a copy of its values that is renewed only when it changed.

    Some changes pass the version counter by (batch norm's of its running statistics, those through
    ``.data``): a tensor in which one was seen is ``sly`` and is copied each time.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.sly = tensor.is_inference()
        self.renew()

    def renew(self) -> None:
        self.version = -1 if self.sly else self.tensor._version
        self.copy = self.tensor.detach().clone()

    def prepare(self) -> None:
        if self.sly or self.tensor._version != self.version:
            self.renew()

    def moved(self) -> bool:
        return self.sly or self.tensor._version != self.version

    def restore(self) -> None:
        if self.moved():
            if self.tensor.shape != self.copy.shape:
                self.tensor.data = torch.empty_like(self.copy)
            self.tensor.detach().copy_(self.copy)
            self.version = -1 if self.sly else self.tensor._version

    def learn(self) -> None:
        """Find out whether the tensor was changed behind the back of its version counter."""
        self.sly = self.sly or not (self.moved() or same_bits(self.tensor, self.copy))


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors hold the same bits; False for layouts that cannot be compared."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    try:
        if torch.equal(a, b):
            return True
        flat = (tensor.detach().reshape(-1).view(torch.uint8) for tensor in (a, b))
        return torch.equal(*flat)  # NaN equals no number, not even itself
    except (RuntimeError, NotImplementedError):
        return False


class Contents:
    """What a container or an object's ``__dict__`` held, by identity of the elements."""

    def __init__(self, holder: Any) -> None:
        self.holder = holder
        self.held = self._items()

    def _items(self) -> list[Any]:
        if isinstance(self.holder, dict):
            return [part for item in dict.items(self.holder) for part in item]
        return list(self.holder)

    def moved(self) -> bool:
        now = self._items()
        return len(now) != len(self.held) or any(
            a is not b for a, b in zip(now, self.held, strict=True)
        )

    def restore(self) -> None:
        if not self.moved():
            return
        holder = self.holder
        holder.clear()
        if isinstance(holder, dict):
            dict.update(holder, zip(self.held[::2], self.held[1::2], strict=True))
        elif isinstance(holder, set):
            holder.update(self.held)
        else:
            holder.extend(self.held)


def reachable(root: nn.Module) -> Iterator[Any]:
    """Mutable containers, ``__dict__`` of objects and tensors that are reachable from ``root``."""
    seen: set[int] = set()
    todo: list[tuple[Any, int]] = [(root, 0)]
    while todo and len(seen) < _MOST_OBJECTS:
        value, depth = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            yield value
        if isinstance(value, _ATOMS) or depth > _DEEPEST:
            continue
        depth = 0 if isinstance(value, nn.Module) else depth + 1
        if isinstance(value, dict | list | set | deque):
            yield value
        if isinstance(value, dict):
            todo.extend((item, depth) for item in list(dict.values(value)))
        elif isinstance(value, list | set | deque | tuple):
            todo.extend((item, depth) for item in value)
        own = getattr(value, "__dict__", None)
        if isinstance(own, dict):
            todo.append((own, depth))


class Generators:
    """The random generators that a network may draw from, as they were.

    Python's and NumPy's are dear to save and seldom drawn from; ``python`` includes them.
    """

    def __init__(self, device: torch.device | None, *, python: bool) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.cuda = None if device is None else torch.cuda.get_rng_state(device)
        self.python = (random.getstate(), np.random.get_state(legacy=False)) if python else None

    def python_moved(self) -> bool:
        """Whether Python's or NumPy's generator was drawn from since."""
        if self.python is None:
            return False
        drawn = random.getstate() != self.python[0]
        return drawn or repr(np.random.get_state(legacy=False)) != repr(self.python[1])

    def moved(self) -> bool:
        """Whether any generator was drawn from since."""
        drawn = not torch.equal(torch.get_rng_state(), self.cpu)
        if self.cuda is not None and self.device is not None:
            drawn = drawn or not torch.equal(torch.cuda.get_rng_state(self.device), self.cuda)
        return drawn or self.python_moved()

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and self.device is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)
        if self.python is not None:
            random.setstate(self.python[0])
            np.random.set_state(self.python[1])


class Saved:
    """The state at the beginning of a pass, which leaving this context brings back."""

    def __init__(self, state: State, holders: Iterable[Any], *, learn: bool) -> None:
        self.state = state
        self.learn = learn
        self.contents = [Contents(holder) for holder in holders]
        self.generators = Generators(state.device, python=learn or state.python)
        self.versions = _versions(state.counted) if learn else 0
        state.renew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        changed = self.learn and _versions(self.state.counted) != self.versions
        if self.learn:
            self.state.learn(self)
        self.restore()
        if changed and kind is None:
            raise RuntimeFailure(
                "the forward pass changes one of its parameters in place",
                hint="watch such a model in a loop of your own, with layertap.attach",
            )

    def moved(self) -> bool:
        """Whether anything changed since, or may have."""
        return (
            self.generators.moved()
            or any(contents.moved() for contents in self.contents)
            or self.state.moved()
        )

    def restore(self) -> None:
        """Bring back everything that was saved; may be done more than once."""
        self.generators.restore()
        for contents in self.contents:
            contents.restore()
        self.state.restore()


_version: Callable[[torch.Tensor], int] = attrgetter("_version")


def _versions(tensors: Iterable[torch.Tensor]) -> int:
    """Versions only grow, so their sum tells whether any did."""
    return sum(map(_version, tensors))


class State:
    """The state of ``root`` outside of its parameters.

    Parameters are not copied, for their size; learning that a forward pass changes one is an error.
    What is done here is done once per pass, for many tensors: hence the sums and maps.

    ``frozen`` tells that there are tensors made in inference mode, which do not count versions and
    can be written to in that mode only.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.holders: list[Any] = []
        self.python = False
        self._index()

    def _index(self) -> list[Any]:
        """Look at everything reachable; returns the mutable containers."""
        parameters = list(self.root.parameters())
        cuda = (parameter.device for parameter in parameters if parameter.is_cuda)
        self.device = next(cuda, None)
        self.counted = [p for p in parameters if not p.is_inference()]
        cells = [
            (module._buffers, key, tensor)
            for module in self.root.modules()
            if not isinstance(module, torch.jit.ScriptModule)
            for key, tensor in module._buffers.items()
        ]
        self.owners = [owner for owner, _, _ in cells]
        self.keys = [key for _, key, _ in cells]
        self.buffers = [tensor for _, _, tensor in cells]
        self.shadows: list[Shadow] = []
        holders = []
        for value in reachable(self.root):
            if not isinstance(value, torch.Tensor):
                holders.append(value)
            elif not isinstance(value, nn.Parameter) and not value.is_meta:
                self.shadows.append(Shadow(value))
        self.frozen = len(self.counted) < len(parameters) or any(s.sly for s in self.shadows)
        self._split()
        return holders

    def _split(self) -> None:
        """Shadows that must be looked at one by one, and those that a sum of versions covers."""
        self.sly = [shadow for shadow in self.shadows if shadow.sly]
        self.plain = [shadow for shadow in self.shadows if not shadow.sly]
        self.tensors = [shadow.tensor for shadow in self.plain]
        self.total = sum(shadow.version for shadow in self.plain)

    def _in_place(self) -> bool:
        return all(map(is_, map(dict.get, self.owners, self.keys), self.buffers))

    def renew(self) -> None:
        """Bring the shadows up to date with what the user did since."""
        if not self.shadows:
            return
        for shadow in self.sly:
            shadow.renew()
        if _versions(self.tensors) != self.total:
            for shadow in self.plain:
                shadow.prepare()
            self.total = _versions(self.tensors)

    def moved(self) -> bool:
        """Whether a buffer or other tensor changed since, or may have."""
        return bool(self.sly or not self._in_place() or _versions(self.tensors) != self.total)

    def restore(self) -> None:
        """Bring buffers and other tensors back to their shadows."""
        if not self._in_place():
            for owner, key, tensor in zip(self.owners, self.keys, self.buffers, strict=True):
                owner[key] = tensor
        if not self.shadows:
            return
        for shadow in self.sly:
            shadow.restore()
        if _versions(self.tensors) != self.total:
            for shadow in self.plain:
                shadow.restore()
            self.total = _versions(self.tensors)

    def kept(self, *, learn: bool = False) -> Saved:
        """A context on leaving which everything is undone that happened to the state inside.

        With ``learn`` everything reachable is looked at, and what changed is remembered; without,
        that and whatever has a version counter. Learning raises RuntimeFailure when a parameter
        changed. It is also done where the user put other buffers in place of those known.
        """
        if learn or not self._in_place():
            return Saved(self, self._index(), learn=True)
        return Saved(self, self.holders, learn=False)

    def learn(self, saved: Saved) -> None:
        """Remember what has changed since ``saved``."""
        self.python = self.python or saved.generators.python_moved()
        self.holders = [contents.holder for contents in saved.contents if contents.moved()]
        for shadow in self.shadows:
            shadow.learn()
        self._split()
