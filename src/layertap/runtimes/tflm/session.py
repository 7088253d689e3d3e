"""The session of the TensorFlow Lite Micro runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from layertap.arena.target import load_target
from layertap.core.dtypes import numpy_dtype
from layertap.core.graph import TapPoint
from layertap.core.protocols import Json
from layertap.core.units import parse_bytes
from layertap.errors import PlanError, RuntimeFailure, SourceError
from layertap.runtimes.registry import BUILTIN
from layertap.runtimes.worker.lacking import litert_lacks, micro_lacks, what_else
from layertap.runtimes.worker.process import WorkerFailure
from layertap.runtimes.worker.session import TfliteSession
from layertap.tflite.edit import with_outputs
from layertap.tflite.graph import MAIN
from layertap.tflite.layout import layout_of
from layertap.tflite.model import TfliteModel
from layertap.tflite.shapes import check_open_shapes
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

_TRIAL = 0
"""The slot of models that are only loaded to see whether the arena is large enough."""

_ARENA_HINT = "an arena that is too small can end it like this; leave arena out to have one found"
_KERNELS_HINT = (
    'the reference kernels of the tflite-micro wheel lack some types; runtime="litert" has more'
)


class TflmSession(TfliteSession):
    row = next(row for row in BUILTIN if row.name == "tflm")
    engine = Path(__file__).with_name("engine.py")
    distribution = "tflite-micro"
    readable = frozenset(_READABLE.split())

    def __init__(
        self,
        source: str | Path | bytes,
        *,
        arena: int | str | None = None,
        target: str | None = None,
        keep_state: bool = False,
        timeout: float | None = None,
    ) -> None:
        super().__init__(source, keep_state=keep_state, timeout=timeout)
        if self.main != MAIN:
            raise SourceError(
                f"TensorFlow Lite Micro runs the first subgraph, not that of {self.signature!r}",
                hint='runtime="litert" runs any signature',
            )
        # The interpreter believes every offset of a layout that the file brings along.
        if layout_of(self.model):
            # Few files have one, and this would be half of the time that opening takes.
            from layertap.arena.mapping import memory_map
            from layertap.arena.shared import check_layout

            check_layout(memory_map(self.model, load_target("host")))
        check_open_shapes(self.model)
        if target is not None and arena is None:
            raise SourceError(
                f"there is no arena to plan for {target!r}", hint="give arena, as in arena='96K'"
            )
        self._room = None if arena is None else _arena(arena)
        self._target = load_target(target or "host")
        self._given = self._room if target is None else None
        self._found = 0

    def options(self) -> dict[str, Json]:
        facts: dict[str, Json] = {"kernels": "reference", "arena": self._given or "automatic"}
        if self._room and not self._given:
            facts["planned_for"] = {"target": self._target.name, "arena": self._room}
        return facts

    def group(self, taps: Sequence[TapPoint], /) -> list[list[TapPoint]]:
        """Passes that fit the given arena, as the memory map predicts or, where it cannot, as
        trying tells. Raises ArenaExceeded and PlanError."""
        self.check_open()
        wanted = [tap.index for tap in taps if tap.kind != "input"]
        if self._room is None or not wanted:
            return [list(taps)]
        # Imported where an arena is given, for the same reason.
        from layertap.arena.passes import passes

        found = passes(self.model, self._target, wanted, self._room)
        groups = found.groups if found.exact else self._tried(wanted, "; ".join(found.unknown))
        number = {index: n for n, group in enumerate(groups) for index in group}
        # Inputs are known already and go with any pass.
        numbers = [0 if tap.kind == "input" else number[tap.index] for tap in taps]
        return [
            [tap for tap, own in zip(taps, numbers, strict=True) if own == n]
            for n in range(len(groups))
        ]

    def _tried(self, wanted: Sequence[int], unknown: str) -> Sequence[Sequence[int]]:
        """Groups that the interpreter itself takes in the given arena."""
        if not self._given:
            raise PlanError(
                f"the arena of this model on {self._target.name} is not known: {unknown}",
                hint="leave target out to plan for the host, or arena to read all in one pass",
            )
        from layertap.arena.grouping import split

        for group in ((), *((tap,) for tap in wanted)):
            self._fitting(group)
        return split(wanted, lambda group: self._fits(group)).groups

    def _fits(self, group: Sequence[int]) -> bool:
        try:
            self._fitting(group)
        except PlanError:
            return False
        return True

    def _fitting(self, group: Sequence[int]) -> None:
        """Load the model with the taps ``group``. Raises PlanError where the arena is too small,
        and RuntimeFailure."""
        self.check_installed()
        self.worker.start()
        try:
            model = with_outputs(self.data, group)
            self._try(model, _TRIAL, self._given or 0, self.keep_state)
        except WorkerFailure as error:
            if error.crashed or _is_about_arena(error.native):
                names = {tap.index: tap.name for tap in self.graph if tap.subgraph == self.main}
                what = ", ".join(repr(names[index]) for index in group) or "the model"
                raise PlanError(
                    f"an arena of {self._given:,} bytes is too small for {what}: {error.said}",
                    hint="give more, or select other taps",
                ) from error.__cause__
            raise self._refused(error) from error.__cause__
        self.worker.drop(_TRIAL)

    def load_model(self, model: bytes, slot: int, *, keep_state: bool) -> None:
        sizes = iter([self._given]) if self._given else self._sizes()
        last = None
        for size in sizes:
            try:
                self._try(model, slot, size, keep_state)
            except WorkerFailure as error:
                last = error
                if error.expired or not (error.crashed or _is_about_arena(error.native)):
                    break
            else:
                self._found = size
                return
        assert last is not None
        raise self._refused(last) from last.__cause__

    def _try(self, model: bytes, slot: int, arena: int, keep_state: bool) -> None:
        state = state_of(self.model)
        options = {"arena": arena, "keep_state": keep_state, "state": state}
        self.worker.load(slot, model, options)

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
        lacking = micro_lacks(self.model)
        which = f" (it has no {', '.join(lacking)})" if lacking else ""
        return RuntimeFailure(
            f"TensorFlow Lite Micro cannot load the model: {error.said}{which}",
            hint=error.hint or self._mended(error, lacking),
        )

    def _mended(self, error: WorkerFailure, lacking: Sequence[str]) -> str:
        if lacking and litert_lacks(self.model):
            return what_else(self.model, self.graph, self.main, lacking)
        if lacking:
            return 'runtime="litert" has what the model uses'
        return _ARENA_HINT if self._given and error.crashed else _KERNELS_HINT

    def failed(self, error: WorkerFailure) -> RuntimeFailure:
        return RuntimeFailure(
            f"TensorFlow Lite Micro failed while running the model: {error.said}",
            hint=error.hint or "the session can be used again",
        )


def _arena(size: int | str) -> int:
    try:
        count = parse_bytes(size, binary=True)
    except ValueError as error:
        raise SourceError(str(error), hint="give the arena in bytes, or as '96K'") from error
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
