"""A Keras model opened for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
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
from layertap.core.proving import ONE, Judgement, prove, with_axes
from layertap.errors import (
    FeedError,
    LayertapError,
    RunError,
    RuntimeFailure,
    Untappable,
)
from layertap.runtimes.keras.engine import Compiled, Target, load_engine, run_eagerly
from layertap.runtimes.keras.export import extractor, save
from layertap.runtimes.keras.inputs import inputs_of
from layertap.runtimes.keras.listing import Lister, Listing, dtype_name, parts
from layertap.runtimes.keras.naming import Ownership
from layertap.runtimes.keras.sources import Source


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
        self._doubled: set[tuple[str, ...]] = set()
        self._listings: dict[Any, Listing] = {}
        self._compiled: dict[Any, Compiled] = {}
        self._axes: dict[str, str] = {}
        self._example: dict[str, Array] = {}
        """The form of what was fed last, without its values."""
        self._traced = False
        listing = self._declared()
        self._traced = listing is None
        self._listing = listing or self._lister().empty()

    @property
    def graph(self) -> Graph:
        return self._listing.graph

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
        replaced = self._engine.internals
        return {
            "runtime": "keras",
            "version": keras.__version__,
            "backend": self._engine.name,
            "backend_version": self._engine.version,
            "fused_rnn": self._fused,
            "compiled": not self._eager,
            "model": {"sha256": self._source.sha256, kind: self._source.origin},
            **({"internals": dict(replaced)} if replaced else {}),
        }

    @property
    def axes(self) -> Mapping[str, str]:
        return self._axes

    def trace(self, feed: Feed, wanted: Wanted | None = None, /) -> Graph:
        """The graph for feeds like this one; builds a model that has no weights yet. Which axis of
        the ``wanted`` taps counts samples is proven.

        Raises FeedError when the model does not take the feed.
        """
        self._check_open()
        arrays = self._arrays(feed)
        self._example = {
            name: np.broadcast_to(np.zeros((), one.dtype), one.shape)
            for name, one in arrays.items()
        }
        if self._traced:
            self._complete(arrays)
        taps = [tap for tap in self.graph if tap.name in self._listing.axes and not tap.untappable]
        self._prove(arrays, [tap for tap in taps if wanted is None or wanted(tap)])
        return self.graph

    def hint_for(self, selector: str, /) -> str:
        """That single operations go by such a name, where they do."""
        if self._operations or self._eager or self._model is None or not self._example:
            return ""
        lister = replace(self._lister(), operations=True)
        try:
            graph = lister.traced(self._example).graph
        except LayertapError:
            return ""
        near = selector.lower()
        found = (tap.name for tap in graph if fnmatchcase(tap.name.lower(), near))
        deep = next((name for name in found if name not in self.graph), None)
        return "" if deep is None else f"depth='ops' (--depth ops) lists {deep!r}"

    def _complete(self, arrays: Mapping[str, Array]) -> None:
        if not self._inputs.complete(tuple(arrays)):
            raise FeedError(
                f"inputs are missing: there is only {', '.join(arrays) or 'none'}",
                hint="give every required argument of the model's call, by its name",
            )
        key = repr(self._inputs.settings), _signature(arrays)
        if key not in self._listings:
            self._listings[key] = self._lister().traced(arrays)
        self._listing = self._listings[key]

    def _prove(self, arrays: dict[str, Array], taps: Sequence[TapPoint]) -> None:
        """Find out which axis of ``taps`` counts samples where nobody knows, by a further run."""
        listing = self._listing
        doubtful = {tap.name for tap in taps if not listing.axes[tap.name]}
        self._axes = {tap.name: listing.axes[tap.name] for tap in taps}
        if not doubtful:
            return
        found: Mapping[str, Judgement] = dict.fromkeys(doubtful, ONE)
        arrays, samples = self._one_batch(arrays)
        if self._inputs.batch not in (None, samples):
            return  # a batch that will be refused
        if samples > 1:
            wanted = tuple(tap.name for tap in taps)
            ours = [tap for tap in taps if tap.name in doubtful]
            counted = {name for name, a in arrays.items() if a.ndim and len(a) == samples}
            found = prove(ours, arrays, partial(self._compute, wanted=wanted), samples, counted)
            listing.axes.update({name: one.evidence for name, one in found.items()})
            listing.graph = with_axes(listing.graph, found)
        self._axes.update({name: one.evidence for name, one in found.items()})

    def _one_batch(self, arrays: dict[str, Array]) -> tuple[dict[str, Array], int]:
        """What one execution takes of ``arrays``, and how many samples that is."""
        size = self._inputs.batch
        samples = next((len(array) for array in arrays.values() if array.ndim), 1)
        if size is None or samples <= size:
            return arrays, samples
        return {name: array[:size] for name, array in arrays.items()}, size

    def read(self, tap: TapPoint, /) -> Array:
        self._check_open()
        if tap.kind != "weight":
            raise RunError(f"{tap.name!r} is no weight", hint="capture it instead")
        value = self._engine.copy(self._listing.weights[tap.name].variable.value)
        if value is None:
            raise RunError(f"{tap.name!r} has no value inside a trace", hint="read it outside")
        return value

    def prepare(self, taps: Sequence[TapPoint], /) -> Pass:
        self._check_open()
        if self._listing.parts != parts(self._model):
            raise RunError(
                "layers or variables were added or removed since the model was opened",
                hint="open it again",
            )
        check_readable(taps)
        for tap in taps:
            if self._eager and self._listing.loops.get(tap.name):
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
        shapes = {tap.name: (tap.shape, tap.dtype) for tap in self.graph.inputs}
        known = [InputSpec(name, dtype, shape) for name, (shape, dtype) in shapes.items()]
        made = extractor(self._model, self._inputs, known or self.inputs, taps, whole=whole)
        if to is None:
            return made
        save(made, to)
        return to

    def close(self) -> None:
        self._model = None
        self._listing = Listing(self.graph)
        self._listings.clear()
        self._compiled.clear()

    def _check_open(self) -> None:
        if self._model is None:
            raise RunError("the model is closed", hint="open it again")

    def _run(
        self, taps: tuple[TapPoint, ...], wanted: tuple[str, ...], feed: Feed, emit: Emit
    ) -> None:
        self._check_open()
        arrays = self._arrays(feed)
        values: Mapping[str, Array] = self._values(arrays, wanted) if wanted else {}
        for tap in taps:
            if tap.kind == "input":
                if tap.name in arrays:  # it may be optional
                    emit(tap, arrays[tap.name].copy()[None])
            elif tap.name in values:
                emit(tap, values[tap.name][None])

    def _values(self, arrays: dict[str, Array], wanted: tuple[str, ...]) -> Mapping[str, Array]:
        """Values by name. Of a layer that this batch does not call there is none."""
        if not self._operations:
            return self._compute(arrays, wanted)
        one = _is_one(arrays)
        if not one or wanted not in self._doubled:
            values = self._compute(arrays, wanted)
            if len(values) == len(wanted):
                return values
        if not one:
            missing = next(name for name in wanted if name not in values)
            raise RunError(
                f"{missing!r} was not computed: for this input the model took another way",
                hint="trace the model with an input like this one, or leave the tap out",
            )
        self._doubled.add(wanted)
        return self._as_two(arrays, wanted)

    def _as_two(self, arrays: Mapping[str, Array], wanted: tuple[str, ...]) -> Mapping[str, Array]:
        """One sample, run as two equal ones: with a batch of one Keras may take other operations
        than those listed, since the sizes of its tensors fit more than one."""
        twice = {name: np.repeat(a, 2, axis=0) if a.ndim else a for name, a in arrays.items()}
        values = self._compute(twice, wanted)
        return {name: self._first(self.graph[name], value) for name, value in values.items()}

    def _first(self, tap: TapPoint, value: Array) -> Array:
        """What one of two equal samples makes of a value."""
        if tap.per == "sample":
            return value.take([0], axis=tap.batch_axis)
        return _first_of_two(tap, value, self._listing.loops[tap.name])

    def _arrays(self, feed: Feed) -> dict[str, Array]:
        self._inputs = self._inputs.set_by(feed)
        return self._inputs.arrays(feed)

    def _compute(self, arrays: Mapping[str, Array], wanted: tuple[str, ...]) -> dict[str, Array]:
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

    def _lister(self) -> Lister:
        return Lister(
            self._model, self._inputs, self._engine, self._target, self._operations, self._eager
        )

    def _declared(self) -> Listing | None:
        """The graph of a model that declares its inputs; None of one that takes an example.

        A Sequential without an Input gets the size of the first batch that it sees, and that is
        saved with it; Keras looks at no model's batch size. Unless something in it needs that size,
        the model takes any.
        """
        built = self._inputs
        stateful = (getattr(layer, "stateful", False) for layer in self._model._flatten_layers())
        if built.batch is not None and not any(stateful):
            self._inputs = built.of_any_batch()
            found = self._lister().declared()
            if found is not None and all(tap.per == "sample" for tap in found.graph.outputs):
                return found
            self._inputs = built
        return self._lister().declared()


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


def _signature(arrays: Mapping[str, Array]) -> Any:
    return tuple((name, array.shape[1:], dtype_name(array)) for name, array in arrays.items())
