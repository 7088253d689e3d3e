"""The graph of a model: from what it declares, from an example, or from a call with values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from layertap.core.dtypes import Array
from layertap.core.feeds import InputSpec
from layertap.core.following import BATCHES, FREE
from layertap.core.graph import Graph
from layertap.core.messages import brief
from layertap.errors import FeedError, LayertapError
from layertap.runtimes.keras import describe
from layertap.runtimes.keras.describe import Known, Probed, Specs
from layertap.runtimes.keras.engine import Engine, Target
from layertap.runtimes.keras.inputs import Inputs
from layertap.runtimes.keras.intercept import listening
from layertap.runtimes.keras.naming import Ownership, Weight


@dataclass
class Listing:
    """A graph, and what else is known of its taps by name. ``axes`` tells how the axis that counts
    samples is known, or why there is none; it is empty where that is to be proven. ``loops`` are
    the loops that a tap is computed in; ``parts`` what the model consisted of."""

    graph: Graph
    axes: dict[str, str] = field(default_factory=dict)
    loops: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, Weight] = field(default_factory=dict)
    parts: Mapping[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lister:
    """Lists what ``model`` computes from ``inputs``. ``target`` makes what is called, by the names
    of the inputs that are fed. ``operations``: single operations too; ``eager``: what cannot be
    called without values may be called with them."""

    model: Any
    inputs: Inputs
    engine: Engine
    target: Callable[[tuple[str, ...]], Target]
    operations: bool
    eager: bool

    def declared(self) -> Listing | None:
        """Of a model that declares its inputs; None when it takes an example."""
        specs = [spec for spec in self.inputs.specs if spec.required]
        if not self.inputs.known or any(spec.shape is None for spec in specs):
            return None
        # How many operations there are can depend on sizes, and so can calls in a Python loop.
        layers = self.model._flatten_layers()
        timed = any(isinstance(layer, keras.layers.TimeDistributed) for layer in layers)
        sized = self.engine.loops or self.operations or timed
        free = any(None in (spec.shape or ())[1:] for spec in specs)
        if (sized and free) or not describe.is_built(self.model):
            return None
        first, second = (_filled(specs, batch, FREE[0]) for batch in BATCHES)
        try:
            return self._listed(first, second, _filled(specs, BATCHES[1], FREE[1]), sized=True)
        except LayertapError:
            return None

    def empty(self) -> Listing:
        """What is known of a model before it has seen an example."""
        return self._assembled({}, [], complete=False)

    def traced(self, arrays: Mapping[str, Array]) -> Listing:
        """For an example; builds a model that has no weights yet. Raises FeedError."""
        exact = {name: (tuple(a.shape), dtype_name(a)) for name, a in arrays.items()}
        if not describe.is_built(self.model):
            self._build(arrays, exact)
        first, second = (self._resized(exact, size, 0) for size in BATCHES)
        trials = [(first, second, self._resized(exact, BATCHES[1], 1)), (first, second, second)]
        for sizes in trials if trials[0] != trials[1] else trials[1:]:
            try:
                return self._listed(*sizes)
            except FeedError:
                continue  # some models take their exact sizes only
        try:
            return self._listed(exact, exact, exact)
        except FeedError:
            if not self.eager:
                raise
        return self._called(arrays, exact)

    def _called(self, arrays: Mapping[str, Array], exact: Specs) -> Listing:
        """What one call with values computes, as far as the values have it computed."""
        try:
            probed = describe.call(self.target(tuple(arrays)), self.engine, arrays)
        except Exception as error:
            raise self._refused(exact, error) from error
        return self._merged((probed, probed, probed), (exact, exact, exact))

    def _resized(self, exact: Specs, batch: int, more: int) -> Specs:
        """``exact`` with another batch size, and sizes that the model leaves open plus ``more``."""
        declared = {spec.name: spec.shape for spec in self.inputs.specs}
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

    def _build(self, arrays: Mapping[str, Array], specs: Specs) -> None:
        """Create the weights of layers that have none yet, as a first call would."""
        try:
            with listening(None, alone=True):
                describe.build(self.model, self.inputs, specs)
        except Exception as error:
            if not (self.eager and self.engine.looks_at_values(error)):
                raise self._refused(specs, error) from error
            tensors = [keras.ops.convert_to_tensor(array) for array in arrays.values()]
            with listening(None, alone=True):
                self.inputs.call(self.model, tuple(arrays), tensors)

    def _listed(self, first: Specs, second: Specs, other: Specs, *, sized: bool = False) -> Listing:
        """From calls on abstract tensors of different sizes; with ``sized`` what is computed must
        not depend on them. Raises FeedError."""
        target = self.target(tuple(first))
        found: dict[str, Probed] = {}
        try:
            for specs in (first, second, other):
                if repr(specs) not in found:
                    found[repr(specs)] = describe.probe(
                        target, self.engine, specs, operations=self.operations
                    )
        except Exception as error:
            raise self._refused(first, error) from error
        one, two, three = (found[repr(specs)] for specs in (first, second, other))
        if sized and len({frozenset(probed.names) for probed in (one, two, three)}) > 1:
            raise FeedError(
                "what the model calls depends on the sizes of its input",
                hint="trace an example of the sizes that you mean to capture",
            )
        return self._merged((one, two, three), (first, second, other))

    def _merged(
        self, probed: tuple[Probed, Probed, Probed], specs: tuple[Specs, Specs, Specs]
    ) -> Listing:
        samples = (_batch(specs[0]), _batch(specs[1]))
        values = describe.merge(*probed, samples, exactly=self.inputs.batch is not None)
        return self._assembled(describe.common_specs(specs[0], specs[2]), values, complete=True)

    def _refused(self, specs: Specs, error: Exception) -> FeedError:
        given = ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in specs.items())
        if self.engine.looks_at_values(error):
            return FeedError(
                "the model's call looks at values (an `if` or a loop on a tensor), which a model "
                f"that {self.engine.name} compiles does not have",
                hint="open it with eager=True, or use keras.ops.cond and while_loop in it",
            )
        several = "" if self.inputs.known else "; where it takes a list, give a tuple of arrays"
        return FeedError(
            f"the model does not take this input: {brief(error)}",
            hint=f"it was called with {given}{several}",
        )

    def _assembled(self, inputs: Specs, values: Sequence[Known], *, complete: bool) -> Listing:
        given = {
            spec.name: (spec.shape, spec.dtype)
            for spec in self.inputs.specs
            if spec.shape is not None and spec.dtype is not None
        }
        known = [(name, dtype, shape) for name, (shape, dtype) in {**inputs, **given}.items()]
        weights = Ownership(self.model).weights
        taps = list(describe.tap_points(known, weights, values))
        named = [tap.name for tap in taps if tap.kind == "weight"]
        return Listing(
            Graph(taps, complete=complete),
            {one.value.name: one.evidence for one in values},
            {one.value.name: len(one.value.loops) for one in values},
            dict(zip(named, weights, strict=True)),
            parts(self.model),
        )


def parts(model: Any) -> dict[int, Any]:
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


def _batch(specs: Specs) -> int | None:
    return next((shape[0] for shape, _ in specs.values() if shape), None)


def dtype_name(array: Array) -> str:
    """The dtype as Keras calls it."""
    return "string" if array.dtype.kind in "USO" else str(np.dtype(array.dtype))
