"""A Keras model opened for reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, InputSpec
from layertap.core.graph import Graph, TapPoint
from layertap.core.messages import brief
from layertap.core.plan import check_readable
from layertap.core.protocols import Capabilities, Emit, Json, Pass, Wanted
from layertap.errors import (
    FeedError,
    LayertapError,
    RunError,
    RuntimeFailure,
    Untappable,
)
from layertap.runtimes.keras import describe
from layertap.runtimes.keras.describe import BATCHES, FREE
from layertap.runtimes.keras.engine import Compiled, Shape, Target, load_engine, run_eagerly
from layertap.runtimes.keras.export import extractor, save
from layertap.runtimes.keras.inputs import inputs_of
from layertap.runtimes.keras.naming import Ownership, Weight
from layertap.runtimes.keras.sources import Source

Specs = dict[str, tuple[Shape, str]]


class KerasSession:
    """See :class:`layertap.core.protocols.Session`.

    The model is called in inference mode and its variables stay as they are, states of stateful
    layers and of random number generators included: each batch starts from the same state.
    """

    def __init__(
        self,
        source: Source,
        inputs: Sequence[str] | None = None,
        *,
        operations: bool = False,
        fused_rnn: bool = True,
        eager: bool = False,
    ) -> None:
        self._operations, self._fused, self._eager = operations, fused_rnn, eager
        self._model: Any = source.model
        self._source = source
        self._engine = load_engine()
        self._inputs = inputs_of(source.model, inputs)
        self._weights: dict[str, Weight] = {}
        self._loops: dict[str, int] = {}
        self._doubled: set[tuple[str, ...]] = set()
        self._graphs: dict[Any, Graph] = {}
        self._compiled: dict[Any, Compiled] = {}
        self._traced = False
        complete = self._declared_for_any_batch() or self._declared()
        self._traced = complete is None
        self._graph = complete or self._assemble({}, [], complete=False)

    @property
    def graph(self) -> Graph:
        return self._graph

    @property
    def inputs(self) -> Sequence[InputSpec]:
        return self._inputs.specs

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            batch=self._inputs.batch,
            traced=self._traced,
            bit_exact=self._engine.bit_exact or self._eager,
            reason="" if self._eager else self._engine.reason,
        )

    @property
    def provenance(self) -> Mapping[str, Json]:
        kind = "type" if self._source.sha256 is None else "path"
        return {
            "runtime": "keras",
            "version": keras.__version__,
            "backend": self._engine.name,
            "backend_version": self._engine.version,
            "fused_rnn": self._fused,
            "compiled": not self._eager,
            "model": {"sha256": self._source.sha256, kind: self._source.origin},
        }

    @property
    def axes(self) -> Mapping[str, str]:
        return {}

    def trace(self, feed: Feed, wanted: Wanted | None = None, /) -> Graph:
        """The graph for feeds like this one; builds a model that has no weights yet.

        Raises FeedError when the model does not take the feed.
        """
        self._check_open()
        if not self._traced:
            return self._graph
        arrays = self._arrays(feed)
        if not self._inputs.complete(tuple(arrays)):
            raise FeedError(
                f"inputs are missing: there is only {', '.join(arrays) or 'none'}",
                hint="give every required argument of the model's call, by its name",
            )
        key = repr(self._inputs.settings), _signature(arrays)
        if key not in self._graphs:
            self._graphs[key] = self._trace(arrays)
        self._graph = self._graphs[key]
        return self._graph

    def read(self, tap: TapPoint, /) -> Array:
        self._check_open()
        if tap.kind != "weight":
            raise RunError(f"{tap.name!r} is no weight", hint="capture it instead")
        value = self._engine.copy(self._weights[tap.name].variable.value)
        if value is None:
            raise RunError(f"{tap.name!r} has no value inside a trace", hint="read it outside")
        return value

    def prepare(self, taps: Sequence[TapPoint], /) -> Pass:
        self._check_open()
        if self._known != _parts(self._model):
            raise RunError(
                "layers or variables were added or removed since the model was opened",
                hint="open it again",
            )
        check_readable(taps)
        for tap in taps:
            if self._eager and self._loops.get(tap.name):
                raise Untappable(
                    f"{tap.name!r} cannot be read eagerly: it is computed inside a loop",
                    hint="leave it out, or open the model without eager=True",
                )
        wanted = tuple(tap.name for tap in taps if tap.kind != "input")
        return partial(self._run, tuple(taps), wanted)

    def export(self, taps: Sequence[TapPoint], to: Path | None, /, *, whole: bool) -> Any:
        """A Functional model with ``taps`` as outputs; or, written to ``to``, a ``.keras`` file or
        a SavedModel folder."""
        self._check_open()
        shapes = {tap.name: (tap.shape, tap.dtype) for tap in self._graph.inputs}
        known = [InputSpec(name, dtype, shape) for name, (shape, dtype) in shapes.items()]
        made = extractor(self._model, self._inputs, known or self.inputs, taps, whole=whole)
        if to is None:
            return made
        save(made, to)
        return to

    def close(self) -> None:
        self._model = None
        self._graphs.clear()
        self._compiled.clear()
        self._weights.clear()
        self._known.clear()

    def _check_open(self) -> None:
        if self._model is None:
            raise RunError("the model is closed", hint="open it again")

    def _run(
        self, taps: tuple[TapPoint, ...], wanted: tuple[str, ...], feed: Feed, emit: Emit
    ) -> None:
        self._check_open()
        arrays = self._arrays(feed)
        read = self._compute if wanted not in self._doubled or not _is_one(arrays) else self._as_two
        try:
            values: Iterator[Array] = iter(read(arrays, wanted) if wanted else ())
        except RunError as error:
            lacking = self._operations and not isinstance(error, RuntimeFailure)
            if not lacking or not _is_one(arrays) or wanted in self._doubled:
                raise
            self._doubled.add(wanted)
            values = iter(self._as_two(arrays, wanted))
        for tap in taps:
            if tap.kind == "input":
                if tap.name in arrays:  # it may be optional
                    emit(tap, arrays[tap.name].copy()[None])
                continue
            value, loops = next(values), self._loops[tap.name]
            if loops and tap.per == "sample":
                # Iterations are stacked on the first axis, where the samples belong.
                value = np.ascontiguousarray(np.moveaxis(value, loops, 0))
            emit(tap, value[None])

    def _as_two(self, arrays: Mapping[str, Array], wanted: tuple[str, ...]) -> list[Array]:
        """One sample, run as two equal ones: with a batch of one Keras may take other operations
        than those listed, since the sizes of its tensors fit more than one."""
        twice = {name: np.repeat(a, 2, axis=0) if a.ndim else a for name, a in arrays.items()}
        values = self._compute(twice, wanted)
        return [
            value.take([0], axis=self._loops[name])
            if self._graph[name].per == "sample"
            else _first_of_two(self._graph[name], value, self._loops[name])
            for name, value in zip(wanted, values, strict=True)
        ]

    def _arrays(self, feed: Feed) -> dict[str, Array]:
        self._inputs = self._inputs.set_by(feed)
        return self._inputs.arrays(feed)

    def _compute(self, arrays: Mapping[str, Array], wanted: tuple[str, ...]) -> list[Array]:
        names = tuple(arrays)
        key = names, wanted, repr(self._inputs.settings)
        compiled = self._compiled.get(key)
        if compiled is None:
            target = self._target(names)
            compiled = (
                run_eagerly(self._engine, target, wanted)
                if self._eager
                else self._engine.compile(target, wanted, operations=self._operations)
            )
            self._compiled[key] = compiled
        try:
            return compiled(list(arrays.values()))
        except LayertapError:
            raise
        except Exception as error:
            raise RuntimeFailure(
                f"Keras failed while running the model: {brief(error)}",
                hint="run the model on this input without layertap to see whether it takes it",
            ) from error

    def _target(self, names: tuple[str, ...]) -> Target:
        # A graph that came from an example holds for its sizes.
        known = () if self._traced else self.inputs
        declared = {spec.name: spec.shape for spec in known}
        return Target(
            self._model,
            partial(self._inputs.call, self._model, names),
            Ownership(self._model),
            names,
            tuple(declared.get(name) for name in names),
            self._fused,
        )

    def _declared_for_any_batch(self) -> Graph | None:
        """The graph of a model that was built for one batch size, which nothing in it needs; None
        of all others.

        A Sequential without an Input gets the size of the first batch that it sees, and that is
        saved with it; Keras looks at no model's batch size.
        """
        built = self._inputs
        stateful = (getattr(layer, "stateful", False) for layer in self._model._flatten_layers())
        if built.batch is None or any(stateful):
            return None
        self._inputs = built.of_any_batch()
        graph = self._declared()
        if graph is None or any(tap.per != "sample" for tap in graph.outputs):
            self._inputs = built
            return None
        return graph

    def _declared(self) -> Graph | None:
        """The graph of a model that declares its inputs; None when it takes an example."""
        specs = [spec for spec in self.inputs if spec.required]
        if not self._inputs.known or any(spec.shape is None for spec in specs):
            return None
        # How many operations there are can depend on sizes, and so can calls in a Python loop.
        layers = self._model._flatten_layers()
        timed = any(isinstance(layer, keras.layers.TimeDistributed) for layer in layers)
        sized = self._engine.loops or self._operations or timed
        if (
            sized and any(None in (spec.shape or ())[1:] for spec in specs)
        ) or not describe.is_built(self._model):
            return None
        first, second = (_filled(specs, BATCHES[i], FREE[i]) for i in (0, 1))
        try:
            return self._describe(first, second, sized=True)
        except LayertapError:
            return None

    def _trace(self, arrays: Mapping[str, Array]) -> Graph:
        exact = {name: (tuple(a.shape), _dtype(a)) for name, a in arrays.items()}
        if not describe.is_built(self._model):
            self._build(exact)
        small, larger = (self._resized(exact, size, 0) for size in BATCHES)
        for second in (self._resized(exact, BATCHES[1], 1), larger):
            try:
                return self._describe(small, second)
            except FeedError:
                continue  # some models take their exact sizes only
        return self._describe(exact, exact)

    def _resized(self, exact: Specs, batch: int, more: int) -> Specs:
        """``exact`` with another batch size, and sizes that the model leaves open plus ``more``."""
        declared = {spec.name: spec.shape for spec in self.inputs}
        resized: Specs = {}
        for name, (shape, dtype) in exact.items():
            known = declared.get(name) or (None, *shape[1:])
            sizes = (
                (size or 0) + more if k is None else size
                for k, size in zip(known[1:], shape[1:], strict=True)
            )
            first = batch if known[0] is None else known[0]
            resized[name] = ((first, *sizes) if shape else (), dtype)
        return resized

    def _build(self, specs: Specs) -> None:
        try:
            describe.build(self._model, self._inputs, specs)
        except Exception as error:
            raise self._refused(specs, error) from error

    def _describe(self, first: Specs, second: Specs, *, sized: bool = False) -> Graph:
        """The graph from two calls on abstract tensors of different sizes; with ``sized`` it must
        be the same for both. Raises FeedError."""
        try:
            found = [
                describe.probe(
                    self._target(tuple(specs)), self._engine, specs, operations=self._operations
                )
                for specs in (first, second)
            ]
        except Exception as error:
            raise self._refused(first, error) from error
        inputs = {
            name: (tuple(a if a == b else None for a, b in zip(shape, other, strict=True)), dtype)
            for (name, (shape, dtype)), (other, _) in zip(
                first.items(), second.values(), strict=True
            )
        }
        if sized and {one.value.name for one in found[0]} != {one.value.name for one in found[1]}:
            raise FeedError(
                "what the model calls depends on the sizes of its input",
                hint="trace an example of the sizes that you mean to capture",
            )
        values = describe.merge(found[0], found[1], (_batch(first), _batch(second)))
        return self._assemble(inputs, values, complete=True)

    def _refused(self, specs: Specs, error: Exception) -> FeedError:
        given = ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in specs.items())
        several = "" if self._inputs.known else "; where it takes a list, give a tuple of arrays"
        return FeedError(
            f"the model does not take this input: {brief(error)}",
            hint=f"it was called with {given}{several}",
        )

    def _assemble(self, inputs: Specs, values: list[Any], *, complete: bool) -> Graph:
        given = {
            spec.name: (spec.shape, spec.dtype)
            for spec in self.inputs
            if spec.shape is not None and spec.dtype is not None
        }
        known = [(name, dtype, shape) for name, (shape, dtype) in {**inputs, **given}.items()]
        weights = Ownership(self._model).weights
        taps = list(describe.tap_points(known, weights, values))
        named = [tap.name for tap in taps if tap.kind == "weight"]
        self._weights = dict(zip(named, weights, strict=True))
        self._loops = {one.value.name: len(one.value.loops) for one, _ in values}
        self._known = _parts(self._model)
        return Graph(taps, complete=complete)


def _parts(model: Any) -> dict[int, Any]:
    """The layers and variables of a model by their identity, which nothing else gets meanwhile."""
    return {id(one): one for one in (*model._flatten_layers(), *model.variables)}


def _filled(specs: Sequence[InputSpec], batch: int, free: int) -> Specs:
    """Declared shapes with every open size filled in."""
    filled: Specs = {}
    for spec in specs:
        shape = spec.shape or ()
        sizes = (free if size is None else size for size in shape[1:])
        first = (batch if shape[0] is None else shape[0],) if shape else ()
        filled[spec.name] = ((*first, *sizes), str(spec.dtype))
    return filled


def _first_of_two(tap: TapPoint, value: Array, loops: int) -> Array:
    """What one of two equal samples makes of a tensor whose first axis does not count them."""
    ends = [(a, size) for a, size in enumerate(value.shape) if a >= loops and size and not size % 2]
    if tap.shape is not None:
        ends = [(axis, size) for axis, size in ends if tap.shape[axis] is None]
    halves = [(size, *np.split(value, 2, axis)) for axis, size in ends]
    halves += [
        (size, value.take(range(0, size, 2), axis), value.take(range(1, size, 2), axis))
        for axis, size in ends
        if size > 2
    ]
    twins = [(size, one) for size, one, other in halves if one.tobytes() == other.tobytes()]
    if not twins:
        return value
    if len(twins) > 1 or twins[0][0] > 2:
        raise RunError(
            f"{tap.name!r} has shape {value.shape} for two samples, and nobody knows for one",
            hint="feed at least two samples in each batch, or leave the tap out",
        )
    return np.ascontiguousarray(twins[0][1])


def _is_one(arrays: Mapping[str, Array]) -> bool:
    return {len(array) for array in arrays.values() if array.ndim} == {1}


def _batch(specs: Specs) -> int | None:
    return next((shape[0] for shape, _ in specs.values() if shape), None)


def _signature(arrays: Mapping[str, Array]) -> Any:
    return tuple((name, array.shape[1:], _dtype(array)) for name, array in arrays.items())


def _dtype(array: Array) -> str:
    """The dtype as Keras calls it."""
    return "string" if array.dtype.kind in "USO" else str(array.dtype)
