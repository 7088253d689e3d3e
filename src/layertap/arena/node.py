"""An operator as its kernel sees it while the model is prepared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from layertap.arena.target import Target
from layertap.core.dtypes import numpy_dtype
from layertap.tflite.flatbuffer import damaged
from layertap.tflite.model import Operator, Tensor

_LARGEST = 1 << 31
"""The interpreter counts in int; sizes from here on are none that it could mean."""

_SIZES = {"resource": 4, "int4": 1, "bfloat16": 2, "float16": 2}
"""Bytes of one element of types that NumPy stores otherwise or lacks. Source: tflite-micro,
tensorflow/lite/micro/memory_helpers.cc, which has no further ones below."""

_REFUSED = frozenset({"string", "variant", "int2", "uint4", "float8_e4m3fn", "float8_e5m2"})


def element_size(dtype: str) -> int | None:
    """Bytes of one element in the arena, None for a type that the interpreter refuses."""
    if dtype in _SIZES:
        return _SIZES[dtype]
    kind = None if dtype in _REFUSED else numpy_dtype(dtype)
    return None if kind is None else kind.itemsize


@dataclass(slots=True)
class Cell:
    """What the interpreter knows of a tensor while it prepares. ``shape`` may change; ``placed``
    once a kernel has given it memory of its own."""

    tensor: Tensor
    shape: tuple[int, ...]
    placed: bool = False

    @property
    def dtype(self) -> str:
        return self.tensor.dtype

    @property
    def constant(self) -> bool:
        return bool(self.tensor.data)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Raises CorruptModel for sizes that no interpreter can count."""
        width = element_size(self.dtype) or 0
        size = self.elements * width
        if size < 0 or size >= _LARGEST:
            raise damaged(
                f"tensor {self.tensor.index} ({self.tensor.name!r}) of shape {list(self.shape)} "
                f"would take {size:,} bytes"
            )
        return size


class Temporary(NamedTuple):
    """The interpreter describes a tensor in memory that it takes back after the operator."""

    cell: Cell


class Persistent(NamedTuple):
    """A kernel keeps so many bytes, so many times."""

    bytes: int
    times: int = 1


class Request(NamedTuple):
    """A kernel wants so many bytes while it runs."""

    bytes: int


Event = Temporary | Persistent | Request


@dataclass(slots=True)
class Node:
    """One operator, and in ``events`` what its kernel does with memory, in order.

    ``inputs`` and ``outputs`` are None for absent ones. ``names`` are the variables that tensors
    of this subgraph are handles of, by index, ``allocated`` those variables of the whole model that
    have memory; kernels add to both.
    """

    target: Target
    data: bytes
    subgraph: int
    number: int
    operator: Operator
    inputs: Sequence[Cell | None]
    outputs: Sequence[Cell | None]
    names: dict[int, str]
    allocated: set[str]
    events: list[Event] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.operator.name

    def input(self, position: int) -> Cell:
        """Raises CorruptModel where the operator has none; kernels cannot do without it."""
        return self._there(self.inputs, position, "input")

    def output(self, position: int = 0) -> Cell:
        return self._there(self.outputs, position, "output")

    def optional(self, position: int) -> Cell | None:
        return self.inputs[position] if position < len(self.inputs) else None

    def look(self, positions: str) -> None:
        """Describe tensors: ``"i0 i1 o0"`` are the first two inputs and the first output."""
        for text in positions.split():
            cells = self.inputs if text[0] == "i" else self.outputs
            place = int(text[1:])
            cell = cells[place] if place < len(cells) else None
            if cell is not None:
                self.events.append(Temporary(cell))

    def keep(self, size: int, times: int = 1) -> None:
        """Ask for ``size`` bytes of the persistent section, ``times`` times."""
        self._sane(size * times)
        self.events.append(Persistent(self._sane(size), times))

    def scratch(self, size: int) -> None:
        """Ask for ``size`` bytes while the operator runs."""
        self.events.append(Request(self._sane(size)))

    def own_shape(self, cell: Cell, shape: Sequence[int] | None = None) -> None:
        """Give ``cell`` a writable shape, and write it. Source: kernel_util.cc,
        CreateWritableTensorDimsWithCopy."""
        self.keep(4 + 4 * cell.rank)
        if shape is not None:
            cell.shape = tuple(shape)

    def content(self, cell: Cell) -> bytes:
        """The bytes of a constant, empty for other tensors."""
        return self.data[cell.tensor.data.start : cell.tensor.data.stop]

    def op_data(self, what: str | None = None) -> int:
        return self.target.op_data[what or self.name]

    def struct(self, name: str) -> int:
        return self.target.structs[name][0]

    def refuse(self, why: str) -> Exception:
        """The error for an operator that no kernel could prepare."""
        return damaged(f"operator {self.number} of subgraph {self.subgraph} ({self.name}) {why}")

    def _there(self, cells: Sequence[Cell | None], place: int, what: str) -> Cell:
        cell = cells[place] if place < len(cells) else None
        if cell is None:
            raise self.refuse(f"has no {what} {place}")
        return cell

    def _sane(self, size: int) -> int:
        if not 0 <= size < _LARGEST:
            raise self.refuse(f"would ask for {size:,} bytes")
        return size


__all__ = ["Cell", "Event", "Node", "Persistent", "Request", "Temporary", "element_size"]
