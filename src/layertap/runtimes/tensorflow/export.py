"""A SavedModel whose outputs are tensors of an opened graph."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from layertap.core.graph import TapPoint
from layertap.core.names import unused
from layertap.errors import PlanError
from layertap.runtimes.tensorflow.catalog import Catalog
from layertap.runtimes.tensorflow.graphs import TABLES
from layertap.runtimes.tensorflow.opened import Input, Opened
from layertap.runtimes.tfgraph.compiled import eagerly, graph_def
from layertap.runtimes.tfgraph.scope import Ref, Scope

_NOT_IN_NAMES = re.compile(r"\W")
SIGNATURE = "serving_default"


class Extractor(tf.Module):  # type: ignore[misc]
    """Computes tensors of a graph; owns a copy of each variable that these need, trainable.

    Calls take one tensor per input, by its name, and return a dict.
    """

    def __init__(self, opened: Opened, scope: Scope, outputs: Mapping[str, Ref]) -> None:
        super().__init__()
        self.weights = {
            name: tf.Variable(variable.read(), shape=variable.shape, dtype=variable.dtype)
            for name, variable in opened.variables.items()
            if name in scope.nodes
        }
        self._inputs = [one for one in opened.inputs if one.node in scope.nodes]
        self._outputs = dict(outputs)
        outside = {*self.weights, *(one.node for one in self._inputs)}
        self._graph = graph_def(scope, outside, opened.library, opened.versions)
        self._names = argument_names(self._inputs)
        self._used = {ref for node in scope.nodes.values() for ref in node.inputs}
        self._used |= set(self._outputs.values())
        self.function = tf.function(self._compute, input_signature=self._signature())

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.function(*args, **kwargs)
        return found

    def _signature(self) -> list[Any]:
        pairs = zip(self._names, self._inputs, strict=True)
        return [tf.TensorSpec(one.shape, one.dtype, name) for name, one in pairs]

    def _compute(self, *given: Any) -> dict[str, Any]:
        tensors = dict(zip((one.node for one in self._inputs), given, strict=True))
        building = tf.compat.v1.get_default_graph()
        tensors |= {name: building.capture(one.handle) for name, one in self.weights.items()}
        inside = {name: ref for name, ref in self._outputs.items() if ref[0] not in tensors}
        found = tf.graph_util.import_graph_def(
            self._graph,
            {f"{name}:0": tensor for name, tensor in tensors.items() if (name, 0) in self._used},
            return_elements=[f"{name}:{output}" for name, output in inside.values()],
            name="",
        )
        values = dict(zip(inside, found, strict=True))
        # An input that is returned must be a tensor of its own.
        return {
            name: values[name] if name in values else tf.identity(tensors[ref[0]])
            for name, ref in self._outputs.items()
        }


def extractor(
    opened: Opened, listed: Catalog, taps: Sequence[TapPoint], *, whole: bool
) -> Extractor:
    """Raises PlanError for taps inside loops and branches, and for graphs with tables."""
    outputs: dict[str, Ref] = {}
    for tap in (*(listed.graph.of_kind("output") if whole else ()), *taps):
        found = listed.found.get(tap.name)
        if found is None or found.place.path or found.looped:
            raise PlanError(
                f"{tap.name!r} cannot be an output: it is computed inside a loop, a branch, or not "
                "at all",
                hint="capture it instead",
            )
        if found.place.ref not in outputs.values():
            name = opened.outputs.get(found.place.ref) or tap.name
            outputs[unused(_NOT_IN_NAMES.sub("_", name), outputs, "_")] = found.place.ref
    scope = opened.scope.ancestors(list(outputs.values()))
    lost = [node.op for node in scope.nodes.values() if node.op in TABLES]
    lost += [name for name in opened.passed if name in scope.nodes]
    lost += [
        name
        for name, variable in opened.variables.items()
        if name in scope.nodes and variable.missing
    ]
    if lost:
        raise PlanError(
            f"the model cannot be exported: it needs {lost[0]!r} from outside the graph",
            hint="end it before that, with until=",
        )
    with eagerly():
        return Extractor(opened, scope, outputs)


def save(made: Extractor, to: Path) -> None:
    """Write a SavedModel with the signature ``serving_default``; complete or not at all.

    Raises PlanError for a path that is there already or lies in no folder.
    """
    if to.exists():
        raise PlanError(f"{str(to)!r} is there already", hint="write to a new path")
    if not to.parent.is_dir():
        raise PlanError(f"there is no folder {str(to.parent)!r}", hint="make it first")
    with tempfile.TemporaryDirectory(prefix=".layertap-", dir=to.parent) as folder, eagerly():
        partial = Path(folder, to.name)
        tf.saved_model.save(made, str(partial), {SIGNATURE: made.function})
        partial.replace(to)


def argument_names(inputs: Sequence[Input]) -> list[str]:
    """Names that arguments of a Python function can have."""
    names: list[str] = []
    for one in inputs:
        name = _NOT_IN_NAMES.sub("_", one.name)
        names.append(unused(name if name[:1].isidentifier() else f"x_{name}", names, "_"))
    return names


__all__ = ["Extractor", "extractor", "save"]
