"""Read layers while the user calls the model in a loop of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from layertap.core.dtypes import Array
from layertap.core.graph import Graph, TapPoint
from layertap.core.select import Selector, compile_selector, no_such_tap, select
from layertap.errors import NoSuchTap, RunError, Untappable
from layertap.runtimes.keras.engine import load_engine
from layertap.runtimes.keras.intercept import listening
from layertap.runtimes.keras.naming import Ownership
from layertap.runtimes.keras.recorder import OUTPUT, Recorder, Value
from layertap.runtimes.keras.session import KerasSession
from layertap.runtimes.keras.sources import load


@contextmanager
def attach(model: Any, selector: Selector = None) -> Iterator[Mapping[str, Array]]:
    """Read the taps that ``selector`` matches in each ``model(x)`` of this thread.

    The mapping holds the values of the latest call, as NumPy arrays of the caller's own. Layers
    are heard in eager calls only: where the model ran inside a compiled function (``predict`` and
    ``fit`` without ``run_eagerly=True``, ``tf.function``, ``jax.jit``), reading raises RunError.

    Raises UnknownSource, SelectionError, Untappable, and NoSuchTap when nothing can match.
    """
    session = KerasSession(load(model, allow_code=False, custom_objects=None))
    taps = LatestValues(model, session, selector)
    with listening(taps.recorder):
        yield taps


class LatestValues(Mapping[str, Array]):
    """The values of the latest call of a model, by tap name."""

    def __init__(self, model: Any, session: KerasSession, selector: Selector) -> None:
        self._session, self._selector = session, selector
        graph = session.graph
        self._matches = compile_selector(selector)
        self._chosen = _readable(select(graph, selector)) if graph.complete else None
        found = [tap for tap in graph if tap.kind == "weight" and self._selects(tap)]
        self._weights = {tap.name: tap for tap in found}
        self._values: dict[str, Array] = {}
        self._seen: dict[str, TapPoint] = {}
        self._nothing = "the model was not called since it was attached to"
        self._symbolic = False
        self._inside: set[str] = set()
        self._loop = ""
        self._copy = load_engine().copy
        self.recorder = Recorder(
            model,
            self._add,
            ownership=Ownership(model),
            reserved=dict.fromkeys(tap.name for tap in graph.inputs),
            wants=self._wants,
            operands=self._chosen is None,
            on_begin=self._begin,
            on_end=self._end,
            on_loop=self.loop,
        )

    @contextmanager
    def loop(self, name: str) -> Iterator[None]:
        """While ``model.fit`` or the like runs: what was read before is not the latest call."""
        self._forget(f"the model ran inside {name}(), in a function that Keras had compiled before")
        self._loop = f"{name}(), in "
        try:
            yield
        finally:
            self._loop = ""

    def _selects(self, tap: TapPoint) -> bool:
        return self._matches(tap) if self._chosen is None else tap.name in self._chosen

    def _wants(self, name: str) -> bool:
        return self._selects(TapPoint(name, "state", "", "", None, -1))

    def _begin(self) -> None:
        self._forget("the latest call of the model raised")
        self._seen.clear()
        self._inside.clear()
        self._symbolic = False

    def _end(self, returned: bool) -> None:
        if self._symbolic or (returned and not self._seen):
            self._forget(f"the model ran inside {self._loop}a compiled function")
        elif returned:
            self._nothing = ""

    def _forget(self, why: str) -> None:
        self._values.clear()
        self._nothing = why

    def _add(self, value: Value) -> None:
        name, kind = value.name, value.kind
        if kind == OUTPUT and value.operands:
            name = value.operands[-1]  # a layer's output, which has a name already
        tap = TapPoint(name, kind, value.op, "", None, len(self._seen))
        self._seen[name] = tap
        if not (self._selects(tap) or kind == OUTPUT):
            return
        copied = self._copy(value.tensor)
        # In a loop that JAX compiles, values have none yet, though the model runs eagerly.
        self._symbolic |= copied is None and kind == OUTPUT
        if copied is None:
            self._inside.add(name)
        elif self._selects(tap):
            self._values[name] = copied

    def __getitem__(self, name: str) -> Array:
        if name in self._weights:
            return self._session.read(self._weights[name])
        if name in self._values:
            return self._values[name]
        self._check()
        if name in self._inside:
            raise RunError(
                f"{name!r} was computed inside a loop that the backend compiled",
                hint="layertap.open(model).capture(x) reads one value per iteration",
            )
        if self._chosen is not None and name in self._chosen:
            raise RunError(
                f"{name!r} was not computed in the latest call",
                hint="the model took another way for this input",
            )
        if name in self._seen:
            raise NoSuchTap(
                f"{name!r} is not among the taps that were attached to",
                hint="attach with a selector that matches it",
            )
        raise no_such_tap(Graph(self._seen.values()), name)

    def __iter__(self) -> Iterator[str]:
        if self._chosen is None or len(self._weights) < len(self._chosen):
            self._check()
        return iter([*self._weights, *self._values])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _check(self) -> None:
        """Raise where there are no values: never empty without a word, never a stale one."""
        if self._nothing:
            raise RunError(
                f"there is nothing to read: {self._nothing}",
                hint="call model(x) itself, compile with run_eagerly=True, or use "
                "layertap.open(model).capture(x), which compiles with the taps in",
            )
        if not self._values and not self._weights:
            raise no_such_tap(Graph(self._seen.values()), self._selector)


def _readable(taps: tuple[TapPoint, ...]) -> set[str]:
    names = {tap.name for tap in taps if tap.kind != "input"}
    if not names:
        raise Untappable(
            f"{taps[0].name!r} is what the caller passes in",
            hint="keep the array that you call the model with",
        )
    return names
