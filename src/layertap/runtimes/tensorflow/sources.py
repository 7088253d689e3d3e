"""From a file, folder or live object to a graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from layertap.errors import SourceError, UnknownSource
from layertap.runtimes.tensorflow.files import open_path
from layertap.runtimes.tensorflow.graphs import Interface, open_graph
from layertap.runtimes.tensorflow.live import Untraced, open_concrete, open_function, origin
from layertap.runtimes.tensorflow.opened import Opened
from layertap.runtimes.tensorflow.variables import InSession, Unknown, Variable, declared
from layertap.runtimes.tfgraph.scope import Node


def load(
    source: Any,
    *,
    signature: str | None,
    session: Any,
    checkpoint: str | Path | None,
    given: Interface,
) -> Opened | Untraced:
    """Raises UnknownSource, CorruptModel, or SourceError with near names for a signature."""
    if isinstance(source, str | Path):
        path, name = split(source)
        return open_path(path, signature or name, checkpoint, given)
    if isinstance(source, tf.compat.v1.Session | tf.compat.v1.InteractiveSession):
        source, session = source.graph, source
    if isinstance(source, tf.Graph):
        return open_live_graph(source, session, given)
    if isinstance(source, tf.Module) or hasattr(source, "signatures"):
        source = _member(source, signature)
    if isinstance(source, tf.types.experimental.ConcreteFunction):
        return open_concrete(source, origin(source))
    if isinstance(source, tf.types.experimental.PolymorphicFunction):
        return open_function(source)
    raise UnknownSource(
        f"a {origin(source)} is no TensorFlow graph",
        hint="pass a tf.function, a ConcreteFunction, a tf.Graph, or a file or folder",
    )


def split(source: str | Path) -> tuple[Path, str | None]:
    """The path and the signature of ``folder#signature``."""
    path = Path(source)
    if path.exists() or "#" not in path.name:
        return path, None
    name, _, signature = str(source).rpartition("#")
    return Path(name), signature


def _member(source: Any, signature: str | None) -> Any:
    """A signature of a loaded SavedModel, or what a module computes when it is called."""
    signatures = getattr(source, "signatures", None) or {}
    if signature is None and not signatures:
        if isinstance(
            vars(type(source)).get("__call__"), tf.types.experimental.PolymorphicFunction
        ):
            return source.__call__
        raise SourceError(
            f"a {type(source).__qualname__} has no tf.function that a call runs",
            hint="pass one of its tf.functions",
        )
    wanted = signature or "serving_default"
    if wanted not in signatures:
        raise SourceError(
            f"the model has no signature {wanted!r}",
            hint=f"there is {', '.join(signatures) or 'none'}",
        )
    return signatures[wanted]


def open_live_graph(graph: Any, session: Any, given: Interface) -> Opened:
    """A graph of this process; its variables have the values that they have in ``session``."""
    session = session or tf.compat.v1.get_default_session()
    if session is not None and session.graph is not graph:
        session = None

    def variable(node: Node) -> Variable:
        dtype, shape = declared(node)
        if session is None:
            return Unknown(
                dtype, shape, "the graph comes without the session (session=) that has its value"
            )
        tensor = _read(graph, node.name)
        if tensor is None:
            return Unknown(dtype, shape, "the graph has no operation that reads it")
        return InSession(session, tensor, node.name, dtype, shape)

    tables = graph.get_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS)
    starts = tuple(operation.name for operation in tables)
    facts = {"model": {"sha256": None, "type": origin(graph)}}
    interface = replace(given, starts=starts)
    return open_graph(graph.as_graph_def(), interface, variable, facts, owner=session)


def _read(graph: Any, name: str) -> Any:
    """A tensor that holds the variable's value without anything else having to run before."""
    tensor = graph.get_tensor_by_name(f"{name}:0")
    if tensor.dtype.base_dtype != tf.resource:
        return tensor
    reads = (
        one for one in tensor.consumers() if one.type == "ReadVariableOp" and not one.control_inputs
    )
    found = next(reads, None)
    return None if found is None else found.outputs[0]
