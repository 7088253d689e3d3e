"""The values of a model on JAX: what layers return and what single operations compute."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import jax

from layertap.runtimes.keras.jaxprs import Evaluation, Found, find, mark
from layertap.runtimes.keras.recorder import Frame, Recorder, Value
from layertap.runtimes.keras.user_lines import user_line

_SCOPE = "layertap_"
_NOBODY = "nobody"

_make_context: Any = getattr(jax, "make_user_context", None)
_traces = _make_context(None) if _make_context is not None else None
_numbers = itertools.count(1)


def retraced() -> AbstractContextManager[object]:
    """Where functions that were jitted and called before are traced anew, so that what is inside
    of them is heard. Before JAX had a way to ask for that they stay as they are."""
    return nullcontext() if _traces is None else _traces(next(_numbers))


class ScopedCalls:
    """Puts the operations of each layer call into a named scope of its own."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._open: list[Any] = []
        self.frames: dict[str, Frame] = {}

    def turn(self) -> None: ...

    def enter(self, frame: Frame) -> None:
        self.frames[str(frame.serial)] = frame
        scope = jax.named_scope(f"{_SCOPE}{frame.serial}")
        scope.__enter__()
        self._open.append(scope)

    def leave(self, frame: Frame) -> None:
        self._open.pop().__exit__(None, None, None)

    @contextmanager
    def muting(self, on: bool) -> Iterator[None]:
        frame = self._recorder.frame
        with jax.named_scope(f"{_SCOPE}{_NOBODY if on or frame is None else frame.serial}"):
            yield


Named = list[tuple[Value, Found]]


def trace(
    recorder: Recorder,
    call: Callable[..., None],
    args: tuple[Any, ...],
    *,
    operations: bool,
    sources: bool = False,
) -> tuple[Any, Named]:
    """The jaxpr of ``call(*args)`` and every value in it, in order of execution."""
    values: list[Value] = []

    def keep(value: Value) -> None:
        mark(value.tensor, len(values))
        values.append(value)

    recorder.on_value = keep
    recorder.watcher = scopes = ScopedCalls(recorder)

    def traced(*args: Any) -> None:
        with retraced():
            call(*args)

    closed = jax.make_jaxpr(traced)(*args)
    names = _Names(recorder, scopes.frames, sources)
    if sources:
        names.producers.update(zip(closed.jaxpr.invars, recorder.reserved, strict=True))
    named: Named = []
    for found in find(closed.jaxpr, operations=operations, prefix=_SCOPE):
        value = names.operation(found) if found.number is None else values[found.number]
        if value is not None:
            names.named(found, value)
            named.append((value, found))
    return closed, named


def brought_out(
    recorder: Recorder,
    call: Callable[..., None],
    args: tuple[Any, ...],
    wanted: Collection[str],
    *,
    operations: bool,
) -> dict[str, Any]:
    """The ``wanted`` values of ``call(*args)``; those inside of loops stacked."""
    closed, named = trace(recorder, call, args, operations=operations)
    names = set(wanted)
    places = {v.name: (found.path, found.output) for v, found in named if v.name in names}
    results = Evaluation(places.values())(closed, jax.tree.leaves(args))
    return {name: results[place] for name, place in places.items() if place in results}


class _Names:
    """Names single operations like the other values, after the layer call that they are in."""

    def __init__(self, recorder: Recorder, frames: dict[str, Frame], sources: bool) -> None:
        self._recorder, self._frames, self._sources = recorder, frames, sources
        self.producers: dict[Any, str] = {}

    def operation(self, found: Found) -> Value | None:
        """None for what belongs to no layer call, or computes nothing."""
        frame, equation = self._frames.get(found.scope), found.equation
        inputs = [atom for atom in equation.invars if not hasattr(atom, "val")]
        if (
            frame is None
            or not inputs
            or type(equation.outvars[found.output]).__name__ == "DropVar"
        ):
            return None
        op = equation.primitive.name
        suffix = f"{'/' if frame.name else ''}{op}" + (f":{found.output}" if found.output else "")
        source = _line(equation) if self._sources else ""
        told: list[Value] = []
        self._recorder.on_value = told.append
        self._recorder.operation(frame, suffix, op, None, (), source)
        (value,) = told
        known = (self.producers.get(atom) for atom in inputs)
        value.operands = tuple(dict.fromkeys(name for name in known if name is not None))
        return value

    def named(self, found: Found, value: Value) -> None:
        equation = found.equation
        self.producers[equation.outvars[found.output]] = value.name
        if found.number is not None and not hasattr(equation.invars[0], "val"):
            self.producers[equation.invars[0]] = value.name


def _line(equation: Any) -> str:
    traceback = equation.source_info.traceback
    frames: Sequence[Any] = traceback.frames if traceback is not None else ()
    return user_line((frame.file_name, frame.line_num) for frame in frames)
