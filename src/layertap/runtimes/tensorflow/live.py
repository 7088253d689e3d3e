"""Functions and graphs of this process."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from layertap import recording
from layertap.core.feeds import Feed, InputSpec
from layertap.core.messages import brief
from layertap.errors import FeedError, SourceError
from layertap.runtimes.tensorflow.opened import Input, Opened
from layertap.runtimes.tensorflow.variables import Live, Variable
from layertap.runtimes.tfgraph.infer import Shape
from layertap.runtimes.tfgraph.scope import Ref, flatten


def static_shape(shape: Any) -> Shape | None:
    """A TensorShape as a tuple, None where the rank is unknown."""
    return None if shape.rank is None else tuple(shape.as_list())


def open_concrete(function: Any, origin: str) -> Opened:
    """A ConcreteFunction, with the variables it captured."""
    graph = function.graph.as_graph_def()
    captured = list(function.captured_inputs)
    fed = function.inputs[: len(function.inputs) - len(captured)]
    placeholders = function.inputs[len(fed) :]
    scope = flatten(graph, [tensor.name for tensor in function.outputs])
    names = _keys(_keywords(function), fed) or [tensor.op.name for tensor in fed]
    inputs = tuple(
        Input(name, tensor.op.name, tensor.dtype, static_shape(tensor.shape))
        for name, tensor in zip(names, fed, strict=True)
    )
    keys = _keys(function.structured_outputs, function.outputs) or [""] * len(function.outputs)
    variables, passed, labels = _captures(function, captured, placeholders)
    return Opened(
        scope,
        {one.signature.name: one for one in graph.library.function},
        graph.versions,
        inputs,
        named_outputs(scope.nodes, list(zip(keys, scope.results, strict=True))),
        variables,
        {"model": {"sha256": None, "type": origin}},
        passed,
        labels,
        owner=function,
    )


def named_outputs(nodes: Mapping[str, Any], outputs: Iterable[tuple[str, Ref]]) -> dict[Ref, str]:
    """Names, from their keys, for the outputs that have none but ``Identity_1``, which TensorFlow
    made up."""
    found: dict[Ref, str] = {}
    for key, ref in outputs:
        own = ref[0].rpartition("/")[2]
        made_up = nodes[ref[0]].op == "Identity" and own.startswith("Identity")
        found.setdefault(ref, key if made_up and key not in nodes else "")
    return found


def _keywords(function: Any) -> Any:
    """The arguments by name of a function that takes nothing but keywords, as signatures do, or
    one dict."""
    try:
        args, keywords = function.structured_input_signature
    except (TypeError, ValueError, AttributeError):
        return None
    if not args:
        return keywords
    return args[0] if len(args) == 1 and not keywords else None


def _keys(structure: Any, tensors: Sequence[Any]) -> list[str]:
    """The keys of a flat dict with as many members as there are tensors, in their order."""
    if not isinstance(structure, Mapping) or len(structure) != len(tensors):
        return []
    nested = any(isinstance(value, Mapping | list | tuple) for value in structure.values())
    return [] if nested else list(map(str, sorted(structure)))


def _captures(
    function: Any, captured: Iterable[Any], placeholders: Iterable[Any]
) -> tuple[dict[str, Variable], dict[str, Any], dict[str, str]]:
    """Variables and other tensors from outside by placeholder, and names for them."""
    known = {id(variable.handle): variable for variable in function.graph.variables}
    variables: dict[str, Variable] = {}
    passed: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for number, (tensor, placeholder) in enumerate(zip(captured, placeholders, strict=True)):
        node = placeholder.op.name
        variable = known.get(id(tensor))
        if variable is not None:
            variables[node] = Live(tensor, variable.dtype, static_shape(variable.shape))
            labels[node] = variable.name.removesuffix(":0")
        else:
            passed[node] = tensor
            labels[node] = f"captured_{number}"
    return variables, passed, labels


class Untraced:
    """A ``tf.function`` without an input signature: what it computes depends on what it is fed."""

    def __init__(self, function: Any) -> None:
        self._function = function
        parameters = function.function_type.parameters.values()
        if all(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters):
            raise SourceError(
                "the function does not tell how many inputs it takes",
                hint="pass function.get_concrete_function(tf.TensorSpec(...), ...)",
            )
        self.inputs = tuple(
            InputSpec(one.name, required=not one.optional)
            for one in parameters
            if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        )

    def trace(self, feed: Feed) -> Opened:
        """Trace it for any batch size, or where it does not take that, for this one. Raises
        FeedError when it does not take the feed."""
        arrays = {name: np.asarray(value) for name, value in feed.items()}
        exact = {name: tf.TensorSpec(a.shape, a.dtype) for name, a in arrays.items()}
        rows = next((a.shape[0] for a in arrays.values() if a.ndim), None)
        relaxed = {
            name: tf.TensorSpec((None, *a.shape[1:]), a.dtype)
            if a.ndim and a.shape[0] == rows
            else exact[name]
            for name, a in arrays.items()
        }
        try:
            concrete = self._traced(relaxed)
        except Exception:
            try:
                concrete = self._traced(exact)
            except Exception as error:
                given = ", ".join(f"{name} {a.shape} {a.dtype}" for name, a in arrays.items())
                raise FeedError(
                    f"the function does not take this input: {brief(error)}",
                    hint=f"it was traced for {given}",
                ) from error
        return open_concrete(concrete, origin(self._function))

    def _traced(self, specs: Mapping[str, Any]) -> Any:
        return heard(self._function, specs)


def heard(function: Any, specs: Mapping[str, Any]) -> Any:
    """A trace of ``function`` in which each value that its code records is a node of that name.

    It is traced anew, for a trace that TensorFlow has kept from an earlier call heard nothing.
    """
    anew = function
    if type(function) is _FUNCTION and not function._jit_compile:
        anew = tf.function(
            function.python_function,
            input_signature=function.input_signature,
            autograph=function._autograph,
        )
    with recording.listening(_as_node):
        return anew.get_concrete_function(**specs)


_FUNCTION = type(tf.function(lambda: None))

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_./-]")


def _as_node(name: str, value: Any) -> None:
    for leaf in tf.nest.flatten(value):
        if tf.is_tensor(leaf):
            tf.identity(leaf, _NOT_IN_NAMES.sub("_", name))


def origin(source: Any) -> str:
    return f"{type(source).__module__}.{type(source).__qualname__}"


def open_function(function: Any) -> Opened | Untraced:
    """A ``tf.function``: with an input signature its graph is known."""
    if function.input_signature is None and function.function_type.parameters:
        return Untraced(function)
    try:
        concrete = heard(function, {})
    except Exception as error:
        raise SourceError(
            f"the function cannot be traced: {brief(error)}",
            hint="call it without layertap to see where it fails",
        ) from error
    return open_concrete(concrete, origin(function))


__all__ = ["Untraced", "named_outputs", "open_concrete", "open_function"]
