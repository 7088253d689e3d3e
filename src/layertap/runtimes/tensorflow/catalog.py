"""The tap points of a graph: every tensor of every node, inside loops and branches too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from layertap.core.collector import collector_paused
from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.graph import Graph, Kind, TapPoint
from layertap.errors import CorruptModel
from layertap.runtimes.tensorflow.batching import Batching, merged
from layertap.runtimes.tensorflow.opened import Opened
from layertap.runtimes.tensorflow.trials import Trials
from layertap.runtimes.tensorflow.writes import HANDING_ON, writes
from layertap.runtimes.tfgraph.accumulate import Place
from layertap.runtimes.tfgraph.classic import Contexts, contexts_of
from layertap.runtimes.tfgraph.infer import ITERATIONS, Path, Type, through
from layertap.runtimes.tfgraph.scope import ARGUMENT, LOOPS, Node, Ref, Scope

HIDDEN = "layertap/"
"""Names of nodes of our own start with this."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a tap is. ``type`` holds what is known of its shape for every batch size. ``looped``:
    it has one value per iteration. ``axis``: the one of a value that counts samples, if one does.
    ``maybe``: it is in a branch, which a batch may not take."""

    place: Place
    type: Type
    looped: bool
    axis: int | None
    maybe: bool


@dataclass
class Catalog:
    """``graph`` with, by tap name, where each computed tap is, how each weight is read, and how it
    is known which axis counts samples, or why none does; empty where that is to be proven."""

    graph: Graph = field(default_factory=lambda: Graph(()))
    found: dict[str, Found] = field(default_factory=dict)
    weights: dict[str, Callable[[], Array]] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    contexts: Contexts | None = None


@dataclass(frozen=True)
class _Inside:
    """The scope being listed: names of what its arguments stand for outside."""

    path: Path
    prefix: str
    own: str
    variables: Mapping[str, str]
    operands: Mapping[str, tuple[str, ...]]
    untappable: str


@collector_paused()
def catalog(opened: Opened, batching: Batching) -> Catalog:
    """List the graph. Raises CorruptModel when TensorFlow refuses it."""
    return _Lister(opened, batching).catalog()


class _Lister:
    def __init__(self, opened: Opened, batching: Batching) -> None:
        self._opened, self._batching = opened, batching
        self._trials = trials = Trials(opened, batching)
        self._first, self._second, _ = trials.types
        self._inputs = {one.node: one for one in opened.inputs}
        self._names: dict[tuple[Path, Ref], str] = {}
        self._used: set[str] = set()
        self._taps: list[TapPoint] = []
        self._broken: dict[tuple[Path, str], str] = {}
        self._hidden: dict[tuple[Path, str], tuple[str, ...]] = {}
        self._result = Catalog()
        self._written = frozenset(writes(opened.scope, opened.resources).values())
        self._contexts = contexts_of(opened.scope)
        self._result.contexts = self._contexts
        self._reserved = {one.name for one in opened.inputs}

    def catalog(self) -> Catalog:
        inside = _Inside((), "", "", {name: name for name in self._opened.variables}, {}, "")
        self._scope(self._opened.scope, inside)
        self._result.graph = Graph(self._taps)
        return self._result

    def _scope(self, scope: Scope, inside: _Inside) -> None:
        for node in scope.nodes.values():
            reason = self._why_not(node, inside)
            if reason:
                self._broken[inside.path, node.name] = reason
            for i, branch in enumerate(node.branches):
                self._branch(scope, node, i, branch, inside, reason)
            if node.name.startswith(HIDDEN):
                self._hidden[inside.path, node.name] = self._operands(node, inside)
            elif node.op != ARGUMENT:
                self._node(scope, node, inside, reason)

    def _why_not(self, node: Node, inside: _Inside) -> str:
        """Why a node cannot run, of itself or because of what it needs."""
        if inside.untappable:
            return inside.untappable
        if not inside.path and node.name in self._opened.broken:
            return self._opened.broken[node.name]
        if not inside.path and node.name in self._opened.variables:
            return self._opened.variables[node.name].missing
        needed = [*(ref[0] for ref in node.inputs), *node.controls]
        return next((why for n in needed if (why := self._broken.get((inside.path, n)))), "")

    def _branch(
        self, scope: Scope, node: Node, number: int, branch: Scope, inside: _Inside, reason: str
    ) -> None:
        loop = node.op in LOOPS
        given = dict(zip(branch.args, node.inputs[0 if loop else 1 :], strict=True))
        variables = {
            arg: variable
            for arg, ref in given.items()
            if (variable := inside.variables.get(through(scope, ref, HANDING_ON)[0]))
        }
        if loop and number == 0:
            reason = (
                reason or "it is part of a loop's condition, which TensorFlow lets nothing out of"
            )
        shown = self._shown(node.name, inside)
        self._scope(
            branch,
            _Inside(
                (*inside.path, (node.name, number)),
                f"{shown}/{node.roles[number]}/",
                f"{node.name}/",
                variables,
                {arg: self._operand(inside, ref) for arg, ref in given.items()},
                reason,
            ),
        )

    def _shown(self, name: str, inside: _Inside) -> str:
        return inside.prefix + name.removeprefix(inside.own)

    def _operand(self, inside: _Inside, ref: Ref) -> tuple[str, ...]:
        if ref[0] in inside.operands:
            return inside.operands[ref[0]]
        if (inside.path, ref[0]) in self._hidden:
            return self._hidden[inside.path, ref[0]]
        name = self._names.get((inside.path, ref))
        return () if name is None else (name,)

    def _operands(self, node: Node, inside: _Inside) -> tuple[str, ...]:
        found = (name for ref in node.inputs for name in self._operand(inside, ref))
        return tuple(dict.fromkeys(found))

    def _node(self, scope: Scope, node: Node, inside: _Inside, reason: str) -> None:
        operands = self._operands(node, inside)
        first = self._first[inside.path]
        output = 0
        while (node.name, output) in first:
            ref = (node.name, output)
            self._tensor(scope, node, ref, inside, operands, reason)
            output += 1

    def _tensor(
        self,
        scope: Scope,
        node: Node,
        ref: Ref,
        inside: _Inside,
        operands: tuple[str, ...],
        reason: str,
    ) -> None:
        source, looped, maybe, why = self._way_out(ref, inside)
        one, two, other = (types[inside.path][source] for types in self._trials.types)
        read, kind_of = self._reader(scope, node, inside, two)
        shape = merged(merged(one.shape, two.shape), other.shape)
        tap_type = kind_of or replace(one, shape=shape)
        name = self._unused(self._proposed(ref, inside))
        self._names[inside.path, ref] = name
        reason = reason or (why if read is None else "")
        kind = self._kind(ref, inside, read is not None)
        axis, evidence = self._axis(source, inside, kind)
        reason = reason or _not_an_array(tap_type)
        if read is None:
            reason = reason or (_unstable(one) if looped else "")
            reason = reason or (_unlisted(one) if looped or maybe or inside.path else "")
        shape = tap_type.shape
        if looped and read is None and shape is not None:
            shape = (self._iterations(inside.path), *shape)
        self._taps.append(
            TapPoint(
                name,
                kind,
                "VarHandleOp" if kind_of else node.op,
                tap_type.dtype.name,
                shape,
                len(self._taps),
                per="run" if read is not None else "batch" if axis is None else "sample",
                operands=operands,
                untappable=reason,
                batch_axis=0 if axis is None else axis + looped,
            )
        )
        if read is not None:
            self._result.weights[name] = read
        elif kind != "input":
            self._result.axes[name] = evidence
        self._result.found[name] = Found(Place(inside.path, source), tap_type, looped, axis, maybe)

    def _way_out(self, ref: Ref, inside: _Inside) -> tuple[Ref, bool, bool, str]:
        """What to read for a tensor, whether it is in a loop, whether a run may pass it by, and why
        it cannot be brought out."""
        loops = [self._is_loop(inside.path, i) for i in range(len(inside.path))]
        if self._contexts is None:
            return ref, any(loops), bool(loops) and not loops[0], ""
        if inside.path:
            context = self._contexts[inside.path[0][0], 0]
            why = "" if context.plain else "it is in a loop or branch inside one of TensorFlow 1"
            return ref, any(loops), bool(loops) and not loops[0], why
        source = self._contexts.source(ref)
        context = self._contexts[source]
        return source, bool(context.frames), context.maybe, self._contexts.why_not(source)

    def _iterations(self, path: Path) -> int | None:
        """How often a scope runs in all, if that is known and the same for all batches."""
        total = 1
        for depth in range(len(path)):
            trials = (self._first, self._second)
            counts = {types[path[: depth + 1]].get(ITERATIONS) for types in trials}
            count = counts.pop()
            if counts or count is None:
                return None
            total *= int(count.value)
        return total if path else None

    def _is_loop(self, path: Path, depth: int) -> bool:
        scope = self._opened.scope
        for name, number in path[:depth]:
            scope = scope.nodes[name].branches[number]
        return scope.nodes[path[depth][0]].op in LOOPS

    def _proposed(self, ref: Ref, inside: _Inside) -> str:
        if not inside.path:
            if ref[0] in self._inputs:
                return self._inputs[ref[0]].name
            label = self._opened.outputs.get(ref) or self._opened.labels.get(ref[0])
            if label:
                return label
        shown = self._shown(ref[0], inside)
        return f"{shown}:{ref[1]}" if ref[1] else shown

    def _unused(self, name: str) -> str:
        unused, number = name, 0
        while unused in self._used or (number and unused in self._reserved):
            number += 1
            unused = f"{name}_{number}"
        self._used.add(unused)
        return unused

    def _kind(self, ref: Ref, inside: _Inside, weight: bool) -> Kind:
        if weight:
            return "weight"
        if not inside.path and ref[0] in self._inputs:
            return "input"
        return "output" if not inside.path and ref in self._opened.outputs else "activation"

    def _axis(self, ref: Ref, inside: _Inside, kind: Kind) -> tuple[int | None, str]:
        """The axis that counts samples, as far as anybody knows, and how it is known."""
        if kind == "weight" or not self._batching.batched:
            return None, ""
        if kind == "input":
            return (0 if self._batching.counts(self._inputs[ref[0]]) else None), ""
        return self._trials.axis(inside.path, ref)

    def _reader(
        self, scope: Scope, node: Node, inside: _Inside, known: Type
    ) -> tuple[Callable[[], Array] | None, Type | None]:
        """How a weight is read without running, and its type if the tensor's own says nothing."""
        if not inside.path and node.name in self._opened.variables:
            variable = self._opened.variables[node.name]
            return variable.read, Type(variable.dtype, variable.shape)
        if not inside.path and node.name in self._opened.passed:
            tensor = self._opened.passed[node.name]
            if _not_an_array(Type(tensor.dtype, None)):
                return None, None
            return lambda: np.array(tensor.numpy()), None
        origin = scope.nodes[through(scope, (node.name, 0), ("Identity",))[0]]
        if origin.op == "ReadVariableOp":
            return self._variable(scope, origin, inside), None
        if origin.op != "Const" or known.shape is None:
            return None, None
        return partial(_constant, origin), None

    def _variable(self, scope: Scope, read: Node, inside: _Inside) -> Callable[[], Array] | None:
        """The value that a variable has before anything ran, if that is what a node reads."""
        handle = through(scope, read.inputs[0], HANDING_ON)[0]
        name = inside.variables.get(handle)
        ordered = bool(read.controls) or bool(inside.path)
        if name is None or (name in self._written and ordered):
            return None
        return self._opened.variables[name].read


def _constant(node: Node) -> Array:
    try:
        return np.array(tf.make_ndarray(node.proto.attr["value"].tensor))
    except (ValueError, TypeError) as error:
        raise CorruptModel(
            f"the constant {node.name!r} does not hold what it declares: {error}",
            hint="the file is damaged",
        ) from error


def _unstable(inside: Type) -> str:
    if inside.shape is not None and None not in inside.shape:
        return ""
    return "its shape may change from one iteration to the next"


def _unlisted(inside: Type) -> str:
    """Why values of a type cannot be gathered in a loop or branch, or an empty text."""
    name = str(inside.dtype.name)
    narrow = name.startswith(("float8", "float4", "int4", "uint4", "int2", "uint2"))
    return f"TensorFlow brings no values of {name} out of a loop or branch" if narrow else ""


def _not_an_array(kind: Type) -> str:
    """Why values of a type are no NumPy array, or an empty text."""
    name: Any = kind.dtype.name
    if name == "resource":
        return "it is a handle, not values"
    if name == "variant":
        return "it is a list or a data set of TensorFlow's own"
    if name == "string":
        return "its values are strings"
    if numpy_dtype(name) is None:
        return f"its values are {name}, for which NumPy has no type"
    return ""
