"""Variables of a graph: what they hold, wherever that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from layertap.core.dtypes import Array
from layertap.errors import CorruptModel, RunError
from layertap.runtimes.tfgraph.compiled import eagerly
from layertap.runtimes.tfgraph.scope import Node, Ref, Scope, dtype_of

Shape = tuple[int | None, ...]


class Variable(Protocol):
    """``dtype`` is TensorFlow's; ``missing`` says why there is no value, empty where there is."""

    @property
    def dtype(self) -> Any: ...

    @property
    def shape(self) -> Shape | None: ...

    @property
    def missing(self) -> str: ...

    def read(self) -> Array:
        """The present value. Raises RunError or CorruptModel."""
        ...

    def handle(self) -> Any:
        """The live variable's handle, or None for one that exists nowhere else in this process."""
        ...


@dataclass(frozen=True)
class Live:
    """A variable of this process, behind its resource handle."""

    resource: Any
    dtype: Any
    shape: Shape | None
    missing: str = ""

    def read(self) -> Array:
        with eagerly():
            value = tf.raw_ops.ReadVariableOp(resource=self.resource, dtype=self.dtype)
            return np.array(value.numpy())

    def handle(self) -> Any:
        return self.resource


@dataclass(frozen=True)
class Stored:
    """A variable in a checkpoint. ``part`` is what of the stored tensor it holds."""

    reader: Any
    key: str
    dtype: Any
    shape: Shape | None
    part: tuple[slice, ...] = ()
    missing: str = ""

    def read(self) -> Array:
        try:
            value = self.reader.get_tensor(self.key)
        except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
            raise CorruptModel(
                f"the checkpoint does not give {self.key!r}: {str(error).partition(chr(10))[0]}",
                hint="its data file is cut off or belongs to another index",
            ) from error
        return np.asarray(value)[self.part]

    def handle(self) -> None:
        return None


@dataclass(frozen=True)
class InSession:
    """A variable of a live ``tf.compat.v1.Session``, read with an operation of its graph."""

    session: Any
    tensor: Any
    name: str
    dtype: Any
    shape: Shape | None
    missing: str = ""

    def read(self) -> Array:
        try:
            return np.array(self.session.run(self.tensor))
        except tf.errors.FailedPreconditionError as error:
            raise RunError(
                f"the variable {self.name!r} has no value in the session",
                hint="run its initializer, or restore a checkpoint, in that session first",
            ) from error
        except (RuntimeError, tf.errors.OpError) as error:
            raise RunError(
                f"the session does not give {self.name!r}: {str(error).partition(chr(10))[0]}",
                hint="is the session closed?",
            ) from error

    def handle(self) -> None:
        return None


@dataclass(frozen=True)
class Unknown:
    """A variable whose value nobody has."""

    dtype: Any
    shape: Shape | None
    missing: str

    def read(self) -> Array:
        raise RunError(f"the variable has no value: {self.missing}", hint="see the model's graph")

    def handle(self) -> None:
        return None


def declared(node: Node) -> tuple[Any, Shape | None]:
    """dtype and shape of the variable that a VarHandleOp makes."""
    attributes = node.proto.attr
    shape = tf.TensorShape(attributes["shape"].shape) if "shape" in attributes else None
    known = None if shape is None or shape.rank is None else tuple(shape.as_list())
    return dtype_of(node), known


@dataclass
class Restored:
    """Which tensor of a checkpoint each variable is restored from, as the graph's own restore
    operations say: this holds for any version of TensorFlow that wrote it."""

    scope: Scope
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.scope.nodes.values():
            if node.op == "AssignVariableOp":
                handle, value = (self._origin(ref) for ref in node.inputs)
                restore = self.scope.nodes[value[0]]
                if restore.op == "RestoreV2":
                    names = self._strings(restore.inputs[1])
                    parts = self._strings(restore.inputs[2])
                    self.keys[handle[0]] = (names[value[1]], parts[value[1]])

    def _origin(self, ref: Ref) -> Ref:
        while self.scope.nodes[ref[0]].op == "Identity":
            ref = self.scope.nodes[ref[0]].inputs[0]
        return ref

    def _strings(self, ref: Ref) -> list[str]:
        node = self.scope.nodes[self._origin(ref)[0]]
        values = tf.make_ndarray(node.proto.attr["value"].tensor)
        return [value.decode() for value in values.ravel()]


def stored(reader: Any, keys: Mapping[str, tuple[str, str]], node: Node) -> Variable:
    """The variable of ``node`` in a checkpoint: where the graph restores it from, else by name."""
    dtype, shape = declared(node)
    held = reader.get_variable_to_shape_map()
    key, part = keys.get(node.name, ("", ""))
    if not key:
        shared = (
            node.proto.attr["shared_name"].s.decode() if "shared_name" in node.proto.attr else ""
        )
        key = next((name for name in (shared, node.name) if name in held), "")
    if key not in held:
        return Unknown(dtype, shape, f"the checkpoint has no {(key or node.name)!r}")
    slices = _slices(part)
    return Stored(reader, key, dtype, tuple(held[key]) if not slices else shape, slices)


def _slices(part: str) -> tuple[slice, ...]:
    """``"20 10 0,5:-"`` (sizes of the whole, then start and length per axis) as slices."""
    if not part:
        return ()
    spans = part.split()[-1].split(":")
    found = []
    for span in spans:
        if span == "-":
            found.append(slice(None))
        else:
            start, length = map(int, span.split(","))
            found.append(slice(start, start + length))
    return tuple(found)
