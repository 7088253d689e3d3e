"""Calls with the caller's own tensors, where a network only looks at what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from sys import getrefcount
from typing import Any

import torch

from layertap.core.feeds import Feed
from layertap.runtimes.torch.arrays import storage_address, storage_use_count
from layertap.runtimes.torch.feeding import Call
from layertap.runtimes.torch.state import same_bits

_ALIGNED = 64
"""Bytes, as PyTorch has it for memory of its own. Elsewhere kernels may round otherwise."""

_look = attrgetter("__class__", "shape", "dtype", "device")

_look_on_cpu = attrgetter("__class__", "shape", "dtype", "is_cpu")
"""The same for a tensor there, in three quarters of the time."""


class Loan:
    """What a pass did to copies of a feed, and how to call the network without them.

    Begun before a pass that is given copies. Where that left them :meth:`untouched`, further feeds
    of the same form can be given as they are, if they lie in memory as copies would.

    ``named`` are the arguments of ``call`` by the names that ``feed`` has for them.
    """

    def __init__(self, feed: Feed, named: Mapping[str, Any], call: Call) -> None:
        names = list(named)
        self.positional, self.keywords = len(call.args), names[len(call.args) :]
        self.copies = [(feed[name], named[name]) for name in names]
        on_cpu = all(getattr(copied, "is_cpu", False) for _, copied in self.copies)
        self.look = _look_on_cpu if on_cpu else _look
        self.parts = [
            (name, self.look(copied))
            for name, (value, copied) in zip(names, self.copies, strict=True)
            if type(value) is torch.Tensor and value.device == copied.device
        ]
        self.marks = self._marks()

    def _marks(self) -> list[object] | None:
        """What changes when somebody keeps a copy, or does more to it than to look. None where
        that cannot be told."""
        if len(self.parts) < len(self.copies):
            return None
        try:
            return [_marks(copied) for _, copied in self.copies]
        except RuntimeError:  # a tensor without a version, or without memory of its own
            return None

    def untouched(self) -> bool:
        """Whether nobody kept the copies, or wrote to them. They are let go of."""
        same = self.marks is not None and self.marks == self._marks()
        same = same and all(same_bits(value, copied) for value, copied in self.copies)
        self.copies = []
        return same

    def arguments(self, feed: Feed) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """What to call the network with for ``feed``; None if that, or where it lies, is of
        another form."""
        if len(feed) != len(self.parts):
            return None
        values = []
        try:
            for name, form in self.parts:
                value: Any = feed.get(name)
                if self.look(value) != form or value.data_ptr() % _ALIGNED:
                    return None
                values.append(value)
        except (AttributeError, RuntimeError):  # no tensor, or none with memory of its own
            return None
        if not self.keywords:
            return tuple(values), {}
        args, rest = values[: self.positional], values[self.positional :]
        return tuple(args), dict(zip(self.keywords, rest, strict=True))


def _marks(tensor: torch.Tensor) -> object:
    return (
        getrefcount(tensor),
        tensor._use_count(),  # type: ignore[attr-defined]
        storage_use_count(storage_address(tensor)),
        tensor._version,
        tensor.requires_grad,
        tensor.shape,
        tensor.stride(),
        tensor.data_ptr(),
        len(tensor.__dict__),
    )
