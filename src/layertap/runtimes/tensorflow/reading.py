"""One selection of taps, compiled: from arrays to the values of each tap."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from layertap.core.dtypes import Array
from layertap.core.graph import TapPoint, format_shape
from layertap.errors import FeedError
from layertap.runtimes.tensorflow.catalog import Catalog, Found
from layertap.runtimes.tensorflow.graphs import TABLES
from layertap.runtimes.tensorflow.opened import Opened
from layertap.runtimes.tensorflow.variables import Stored, Variable
from layertap.runtimes.tensorflow.writes import writes
from layertap.runtimes.tfgraph.accumulate import Listed, expose
from layertap.runtimes.tfgraph.classic import Contexts, expose_classic
from layertap.runtimes.tfgraph.compiled import Compiled, Program, eagerly
from layertap.runtimes.tfgraph.scope import Ref, Scope

_numbers = itertools.count()


class Variables:
    """The variables that one selection needs: live ones as they are, stored ones as copies in
    ``kept`` that all selections share, others as copies of its own. Those that the graph assigns
    start anew with each batch."""

    def __init__(self, opened: Opened, scope: Scope, kept: dict[str, Any]) -> None:
        self._opened = opened
        self._kept = kept
        self._written = frozenset(writes(scope, opened.resources).values())
        self._copies: dict[str, Any] = {}
        self.handles = {
            name: self._handle(name, variable)
            for name, variable in opened.variables.items()
            if name in scope.nodes
        }

    def _handle(self, name: str, variable: Variable) -> Any:
        if variable.missing:
            return _without_value(variable)
        live = variable.handle()
        if live is not None and name not in self._written:
            return live
        never_changes = isinstance(variable, Stored) and name not in self._written
        copies = self._kept if never_changes else self._copies
        if name not in copies:
            with eagerly():
                value = tf.constant(variable.read(), variable.dtype)
                copies[name] = tf.Variable(value, shape=variable.shape, trainable=False)
        return copies[name].handle

    @property
    def lasting(self) -> bool:
        """Whether they have the model's values at any later time too."""
        return self._copies.keys() <= self._written

    def reset(self) -> None:
        """Give assigned variables the values that the model has at present."""
        for name, copy in self._copies.items():
            if name in self._written:
                with eagerly():
                    copy.assign(self._opened.variables[name].read())


def _without_value(variable: Variable) -> Any:
    """A variable that what runs assigns before it reads it, as the start of a graph may do."""
    with eagerly():
        return tf.raw_ops.VarHandleOp(
            dtype=variable.dtype,
            shape=tf.TensorShape(variable.shape),
            shared_name=f"layertap_variable_{next(_numbers)}",
        )


class Shared:
    """What all selections of a session share: copies of stored variables, and tables, which are
    filled once, when something needs them."""

    def __init__(self, opened: Opened) -> None:
        self.variables: dict[str, Any] = {}
        self._opened: Opened | None = opened

    def start(self, scope: Scope) -> None:
        """Fill the tables if ``scope``, which is about to run, needs them."""
        opened = self._opened
        if opened is None or not opened.starts or not opened.starts.effects:
            return
        if any(node.op in TABLES for node in scope.nodes.values()):
            handles = Variables(opened, opened.starts, self.variables).handles
            program = Program(opened.starts, {}, handles, opened.library, opened.versions)
            Compiled(program, (), opened.starts.effects)(())
            self._opened = None


class Reading:
    """Compiled for a selection of taps and a set of fed inputs."""

    def __init__(
        self,
        opened: Opened,
        listed: Catalog,
        taps: Sequence[TapPoint],
        fed: Sequence[str],
        shared: Shared,
    ) -> None:
        self.names = tuple(tap.name for tap in taps)
        self._found = [listed.found[tap.name] for tap in taps]
        scope, self._places = _brought_out(opened.scope, listed.contexts, self._found)
        fetches = [ref for place in self._places for ref in _refs(place)]
        scope = scope.ancestors(fetches)
        self.random = _draws(scope)
        """Whether what it computes may depend on random numbers that go on from run to run."""
        _check_fed(opened, scope, fed)
        shared.start(scope)
        self._variables = Variables(opened, scope, shared.variables)
        given = {
            one.node: tf.TensorSpec(one.shape, one.dtype)
            for one in opened.inputs
            if one.name in fed
        }
        passed = {name: tensor for name, tensor in opened.passed.items() if name in scope.nodes}
        program = Program(
            scope,
            given,
            {**passed, **self._variables.handles},
            opened.library,
            opened.versions,
        )
        self._compiled = Compiled(program, fetches)

    @property
    def lasting(self) -> bool:
        """Whether it reads what the model holds at the time of the call."""
        return self._variables.lasting

    def __call__(self, tensors: Sequence[Any], samples: int) -> dict[str, Array]:
        """The value of each tap by name, less those in a branch that was not taken."""
        self._variables.reset()
        arrays = iter(self._compiled(tensors))
        values: list[Array | None] = []
        for found, place in zip(self._found, self._places, strict=True):
            if isinstance(place, Listed):
                each = place.values([next(arrays) for _ in place.refs])
                values.append(_joined(found, each, samples))
            else:
                values.append(next(arrays))
        named = zip(self.names, values, strict=True)
        return {name: value for name, value in named if value is not None}


def _draws(scope: Scope) -> bool:
    return any(
        ("Random" in node.op and not node.op.startswith("Stateless"))
        or any(map(_draws, node.branches))
        for node in scope.nodes.values()
    )


def _brought_out(
    scope: Scope, contexts: Contexts | None, found: Sequence[Found]
) -> tuple[Scope, list[Ref | Listed]]:
    """``scope`` with what brings values out of loops and branches, and where to fetch each tap."""
    inside = [one for one in found if one.place.path]
    classic = [
        one
        for one in found
        if contexts and not one.place.path and not contexts[one.place.ref].plain
    ]
    lists: list[Listed] = []
    if inside:
        scope, lists = expose(scope, [(one.place, one.type) for one in inside])
    places: dict[int, Listed] = dict(zip(map(id, inside), lists, strict=True))
    if contexts and classic:
        scope, lists = expose_classic(
            scope, contexts, [(one.place.ref, one.type) for one in classic]
        )
        places |= zip(map(id, classic), lists, strict=True)
    return scope, [places.get(id(one), one.place.ref) for one in found]


def _check_fed(opened: Opened, scope: Scope, fed: Sequence[str]) -> None:
    for one in opened.inputs:
        node = scope.nodes.get(one.node)
        if node is None or one.name in fed or node.op == "PlaceholderWithDefault":
            continue
        raise FeedError(
            f"the taps need the input {one.name!r}, which is not fed",
            hint=f"it takes {format_shape(one.shape)} {one.dtype.name}",
        )


def _refs(place: Ref | Listed) -> tuple[Ref, ...]:
    return place.refs if isinstance(place, Listed) else (place,)


def _joined(found: Found, each: list[Array], samples: int) -> Array | None:
    """The values of all executions as one array, (iteration, ...) where there are iterations."""
    if not found.looped:
        return each[0] if each else None
    if not each and found.maybe:
        return None
    if each:
        return np.stack(each)
    shape = [size or 0 for size in found.type.shape or ()]
    if found.axis is not None:
        shape[found.axis] = samples
    return np.empty((0, *shape), found.type.dtype.as_numpy_dtype)
