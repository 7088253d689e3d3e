"""The session of the TensorFlow Lite Micro runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from layertap.core.dtypes import numpy_dtype
from layertap.core.protocols import Json
from layertap.core.units import parse_bytes
from layertap.errors import RunError, RuntimeFailure, SourceError
from layertap.runtimes.registry import BUILTIN
from layertap.runtimes.worker.process import WorkerFailure
from layertap.runtimes.worker.session import TfliteSession
from layertap.tflite.layout import layout_of
from layertap.tflite.model import TfliteModel
from layertap.tflite.schema import OPERATORS
from layertap.tflite.state import state_of

_MOST = 1 << 31
"""Largest arena that is tried, bytes."""

_READABLE = """
bool int8 int16 int32 int64 uint8 uint32 uint64 float16 float32 float64 complex64 complex128
"""

_TOO_SMALL = (
    "tail memory",
    "Failed to resize buffer",
    "Failed to allocate memory",
    "Arena size is too small",
    "Too many buffers",
    "missing:",
)
"""Native messages about an arena that does not suffice."""

_ARENA_HINT = "an arena that is too small can end it like this; leave arena out to have one found"
_KERNELS_HINT = (
    "the reference kernels of the tflite-micro wheel lack some operators and types; "
    'runtime="litert" has more'
)


class TflmSession(TfliteSession):
    row = next(row for row in BUILTIN if row.name == "tflm")
    engine = "layertap.runtimes.tflm.engine"
    distribution = "tflite-micro"
    readable = frozenset(_READABLE.split())

    def __init__(
        self,
        source: str | Path | bytes,
        *,
        arena: int | str | None = None,
        keep_state: bool = False,
        timeout: float | None = None,
    ) -> None:
        super().__init__(source, keep_state=keep_state, timeout=timeout)
        # The interpreter believes every offset of a layout that the file brings along.
        layout_of(self.model)
        self._given = None if arena is None else _arena(arena)
        self._found = 0

    def options(self) -> dict[str, Json]:
        return {"kernels": "reference", "arena": self._given or "automatic"}

    def load(self, model: bytes, slot: int) -> None:
        sizes = iter([self._given]) if self._given else self._sizes()
        last = None
        for size in sizes:
            try:
                self._try(model, slot, size)
            except WorkerFailure as error:
                last = error
                if error.expired or not (error.crashed or _is_about_arena(error.native)):
                    break
            else:
                self._found = size
                return
        assert last is not None
        raise self._refused(last) from last.__cause__

    def _try(self, model: bytes, slot: int, arena: int) -> None:
        state = state_of(self.model)
        options = {"arena": arena, "keep_state": self.keep_state, "state": state}
        header = {"do": "load", "slot": slot, "options": options}
        self.request(header, [np.frombuffer(model, np.uint8)])

    def _sizes(self) -> Iterator[int]:
        """Sizes to try: the one that worked before, else generous ones; memory that is not
        touched costs nothing."""
        size = max(self._found, _enough(self.model))
        for _ in range(3):
            yield min(size, _MOST)
            size *= 4

    def _refused(self, error: WorkerFailure) -> RuntimeFailure:
        if self._given and _is_about_arena(error.native):
            return RuntimeFailure(
                f"an arena of {self._given:,} bytes is too small for this model and these taps: "
                f"{error.said}",
                hint="give more, select fewer taps, or leave arena out to have a size found",
            )
        operators = {op.name for graph in self.model.subgraphs for op in graph.operators}
        custom = sorted(operators - set(OPERATORS)) if "CUSTOM" in error.native else []
        which = f" (custom operators: {', '.join(custom)})" if custom else ""
        return RuntimeFailure(
            f"TensorFlow Lite Micro cannot load the model: {error.said}{which}",
            hint=error.hint or (_ARENA_HINT if self._given and error.crashed else _KERNELS_HINT),
        )

    def failed(self, error: WorkerFailure) -> RunError:
        return RuntimeFailure(
            f"TensorFlow Lite Micro failed while running the model: {error.said}",
            hint=error.hint or "the session can be used again",
        )


def _arena(size: int | str) -> int:
    try:
        count = parse_bytes(size)
    except ValueError as error:
        raise SourceError(str(error), hint="give the arena in bytes, or as '96KiB'") from error
    if not 0 < count <= _MOST:
        raise SourceError(
            f"an arena of {count:,} bytes is not possible", hint=f"give 1 to {_MOST:,} bytes"
        )
    return count


def _enough(model: TfliteModel) -> int:
    """Bytes that should suffice for ``model``: every tensor of its own, constants twice (kernels
    unpack and transpose them), and the interpreter's structures per tensor and operator."""
    size = 1 << 16
    for subgraph in model.subgraphs:
        size += 2048 * len(subgraph.operators)
        for tensor in subgraph.tensors:
            dtype = numpy_dtype(tensor.dtype)
            elements = math.prod(max(0, n) for n in tensor.shape)
            size += 512 + elements * (8 if dtype is None else dtype.itemsize) * 2
    return size


def _is_about_arena(native: str) -> bool:
    return any(message in native for message in _TOO_SMALL)


__all__ = ["TflmSession"]
