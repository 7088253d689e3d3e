"""The tap points of a model in execution order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from layertap.core.dtypes import numpy_dtype
from layertap.core.quantization import Quantization
from layertap.core.units import format_bytes

Kind = Literal["input", "argument", "activation", "output", "state", "weight"]
"""input: fed by the caller; argument: what a layer inside the model was called with;
activation: computed; output: computed and returned by the model; state: a variable that a run
changes (read after each batch); weight: constant."""

Per = Literal["sample", "batch", "run"]
"""What one row of captures belongs to: an axis of the tensor counts samples (``sample``), none does
or nothing proves it (``batch``: one value per executed batch), or the tensor never changes
(``run``)."""

COMPUTED: frozenset[Kind] = frozenset({"activation", "output", "state"})
"""The kinds that a pattern ranges over unless the selector names a kind."""


@dataclass(frozen=True, slots=True)
class TapPoint:
    """One readable tensor.

    ``shape`` is the tensor's own shape, batch axis included; ``None`` stands for an unknown size,
    and ``shape=None`` for an unknown rank. ``dtype`` is a name that
    :func:`layertap.core.dtypes.numpy_dtype` knows, or the framework's word where NumPy has none.
    ``index`` is the runtime's own number for the tensor, within ``subgraph``. ``operands`` names
    the tap points from which this one is computed. ``untappable`` is the reason why it cannot be
    read, empty when it can. ``source`` is the line of the user's code that computes it
    (``file:line``), where the runtime knows it. ``batch_axis`` is the axis of ``shape`` that counts
    samples where rows are those of samples. ``also`` are further names that it goes by, as in a
    signature of the file.
    """

    name: str
    kind: Kind
    op: str
    dtype: str
    shape: tuple[int | None, ...] | None
    index: int
    subgraph: int = 0
    quantization: Quantization | None = None
    per: Per = "sample"
    operands: tuple[str, ...] = ()
    untappable: str = ""
    source: str = ""
    batch_axis: int = 0
    also: tuple[str, ...] = ()

    @property
    def native(self) -> str:
        """The native index as selectors write it: ``#17``, ``s1/#3`` in subgraph 1."""
        return f"#{self.index}" if self.subgraph == 0 else f"s{self.subgraph}/#{self.index}"

    @property
    def row_shape(self) -> tuple[int | None, ...] | None:
        """Shape of one captured row: without the batch axis where there is one."""
        if self.shape is None:
            return None
        if self.per != "sample":
            return self.shape
        return self.shape[: self.batch_axis] + self.shape[self.batch_axis + 1 :]

    @property
    def row_bytes(self) -> int | None:
        """Bytes of one captured row, None while a dimension or the dtype is unknown."""
        dtype, shape = numpy_dtype(self.dtype), self.row_shape
        if dtype is None or shape is None:
            return None
        sizes = [size for size in shape if size is not None]
        return math.prod(sizes) * dtype.itemsize if len(sizes) == len(shape) else None


class Graph:
    """An immutable collection of tap points in execution order, names unique.

    ``complete`` is False while the runtime needs an example input to know every call, shape and
    dtype. Raises ValueError when two tap points share a name.
    """

    def __init__(self, taps: Iterable[TapPoint], *, complete: bool = True) -> None:
        self.taps = tuple(taps)
        self.complete = complete
        self._by_name = {tap.name: tap for tap in self.taps}
        if len(self._by_name) != len(self.taps):
            raise ValueError("tap names are not unique")

    def __len__(self) -> int:
        return len(self.taps)

    def __iter__(self) -> Iterator[TapPoint]:
        return iter(self.taps)

    def __getitem__(self, key: str | int) -> TapPoint:
        """The tap point with this name, or at this position (int)."""
        return self._by_name[self.canonical(key)] if isinstance(key, str) else self.taps[key]

    def __contains__(self, key: object) -> bool:
        return self.canonical(key) in self._by_name if isinstance(key, str) else key in self.taps

    def canonical(self, name: str) -> str:
        """The tap's own name for ``name``, which may be a further one; else ``name`` as it is."""
        return name if name in self._by_name else self._further.get(name, name)

    @cached_property
    def _further(self) -> dict[str, str]:
        return {name: tap.name for tap in reversed(self.taps) for name in tap.also}

    def of_kind(self, *kinds: Kind) -> tuple[TapPoint, ...]:
        return tuple(tap for tap in self.taps if tap.kind in kinds)

    @property
    def inputs(self) -> tuple[TapPoint, ...]:
        return self.of_kind("input")

    @property
    def outputs(self) -> tuple[TapPoint, ...]:
        return self.of_kind("output")

    @cached_property
    def _consumers(self) -> dict[str, tuple[TapPoint, ...]]:
        consumers: dict[str, list[TapPoint]] = {}
        for tap in self.taps:
            for operand in dict.fromkeys(tap.operands):
                consumers.setdefault(operand, []).append(tap)
        return {name: tuple(taps) for name, taps in consumers.items()}

    def consumers(self, tap: TapPoint) -> tuple[TapPoint, ...]:
        """Tap points computed directly from ``tap``."""
        return self._consumers.get(tap.name, ())

    def producers(self, tap: TapPoint) -> tuple[TapPoint, ...]:
        """Tap points from which ``tap`` is computed directly."""
        return tuple(self._by_name[name] for name in tap.operands if name in self._by_name)

    def __str__(self) -> str:
        return format_table(self.taps)

    def __repr__(self) -> str:
        return f"<Graph: {len(self)} tap points>\n{self}"


COLUMNS = ("name", "kind", "op", "dtype", "shape", "bytes", "quantization")


def table_row(tap: TapPoint) -> tuple[str, ...]:
    """``tap`` as one row of text under :data:`COLUMNS`; bytes are those of one captured row, and
    further names stand behind the kind."""
    size = tap.row_bytes
    return (
        tap.name,
        f"{tap.kind} ({', '.join(tap.also)})" if tap.also else tap.kind,
        tap.op,
        tap.dtype,
        format_shape(tap.shape),
        "?" if size is None else format_bytes(size),
        tap.untappable or ("" if tap.quantization is None else str(tap.quantization)),
    )


def format_shape(shape: tuple[int | None, ...] | None) -> str:
    """``(None, 8, 8)`` as ``?x8x8``; a scalar is ``scalar``, an unknown rank ``?``."""
    if shape is None:
        return "?"
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"


def format_table(taps: Iterable[TapPoint]) -> str:
    """A plain text table of tap points, one line each."""
    rows = [COLUMNS, *(table_row(tap) for tap in taps)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)
