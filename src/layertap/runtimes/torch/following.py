"""Following the samples through the operations of one real forward pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from layertap.runtimes.torch.arrays import memory
from layertap.runtimes.torch.internals import (
    TorchDispatchMode,
    WeakTensorKeyDictionary,
    tree_leaves,
    written_arguments,
)
from layertap.runtimes.torch.places import NORMS, UNKNOWN, Operation, Place

log = logging.getLogger(__name__)


class Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, follows ``samples`` samples through all operations of this thread.

    ``owned`` are tensors of the module, which hold no samples. ``before_write`` may be set: it
    gets every tensor that an operation is about to write to.
    """

    supports_higher_order_operators = True

    def __init__(self, samples: int, owned: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.samples = samples
        self.before_write: Callable[[torch.Tensor], None] = lambda _: None
        self._owned = {memory(tensor) for tensor in owned} - {0}
        self._places: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._writes: dict[int, list[_Write]] = {}
        self._clock = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # What is read runs eagerly; skipping would import the compiler, which takes a second.
        return False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        # An operator such as torch.cond is compiled also when all else runs eagerly.
        return True

    def begin(self, tensor: torch.Tensor, place: Place | None) -> None:
        """The samples of ``tensor``, an input, lie at ``place``."""
        self._settle_place(tensor, place)

    def place(self, tensor: torch.Tensor) -> Place | None:
        """Where the samples of ``tensor`` lie; None where it has none, or holds them mixed."""
        known: _Known | None = self._places.get(tensor)  # type: ignore[no-untyped-call]
        if known is None:
            return UNKNOWN if self._may_hold(tensor) else None
        return UNKNOWN if self._is_written(tensor, known.since) else known.place

    def _may_hold(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor of elsewhere may be of samples: it is not the module's own, but made by
        what is no operation."""
        could = self.samples > 1 and tensor.numel() > 0 and tensor.numel() % self.samples == 0
        return could and memory(tensor) not in self._owned

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if not isinstance(func, torch._ops.OpOverload):
            output = func(*args, **named)  # an operator that calls others, as torch.cond
            self._settle(None, [], output)
            return output
        written = _written(func, args, named)
        for tensor in written:
            self.before_write(tensor)
        if func.overloadpacket in NORMS:
            written = []  # running statistics are of no sample
        try:
            operation = Operation(func, args, named, self.samples, self.place, writes=bool(written))
        except Exception as error:
            log.debug("%s is not followed: %s", func, error)
            operation = None
        output = func(*args, **named)
        self._settle(operation, written, output)
        return output

    def _settle(
        self, operation: Operation | None, written: Sequence[torch.Tensor], output: Any
    ) -> None:
        outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        try:
            if operation is None:
                raise ValueError("its arguments are not known")
            places = operation.places(outputs)
        except Exception as error:
            log.debug("an operation is not followed: %s", error)
            places = [UNKNOWN] * len(outputs)
        for tensor in written:
            if not any(tensor is result for result in outputs):
                self._write(tensor, UNKNOWN)
        for tensor, place in zip(outputs, places, strict=True):
            if any(tensor is target for target in written):
                self._write(tensor, place)
            else:
                self._settle_place(tensor, place)

    def _write(self, tensor: torch.Tensor, place: Place | None) -> None:
        """What shares memory with a tensor that gets samples, or others, holds these, too."""
        self._clock += 1
        if place != self.place(tensor):
            write = _Write(self._clock, _extent(tensor))
            self._writes.setdefault(memory(tensor), []).append(write)
        self._settle_place(tensor, place)

    def _settle_place(self, tensor: torch.Tensor, place: Place | None) -> None:
        self._places[tensor] = _Known(place, self._clock)

    def _is_written(self, tensor: torch.Tensor, since: int) -> bool:
        """Whether something was written to the memory of ``tensor`` by another name."""
        return any(
            write.clock > since and np.shares_memory(_extent(tensor), write.extent)
            for write in self._writes.get(memory(tensor), ())
        )


class _Known(NamedTuple):
    """Where the samples of a tensor lie, and since which write that is known."""

    place: Place | None
    since: int


class _Write(NamedTuple):
    """A write that moved samples: when, and to which elements."""

    clock: int
    extent: np.ndarray[Any, Any]


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors that an operation writes to, as its schema says."""
    values = written_arguments(func, args, kwargs)
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


class _Memory:
    """The elements of a tensor, for NumPy, which only looks at where they lie."""

    def __init__(self, tensor: torch.Tensor) -> None:
        size = tensor.element_size()
        self.__array_interface__ = {
            "version": 3,
            "data": (tensor.data_ptr(), True),
            "shape": tuple(tensor.shape),
            "strides": tuple(size * stride for stride in tensor.stride()),
            "typestr": f"|V{size}",
        }


def _extent(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(_Memory(tensor))
