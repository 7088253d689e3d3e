"""What every kind of source becomes: a graph, its inputs and outputs, and its variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layertap.core.protocols import Json
from layertap.runtimes.tensorflow.variables import Variable
from layertap.runtimes.tfgraph.infer import Shape
from layertap.runtimes.tfgraph.scope import Ref, Scope


@dataclass(frozen=True, slots=True)
class Input:
    """A node that the caller feeds. ``dtype`` is TensorFlow's. ``optional``: the graph has a value
    of its own, or not every tap needs it."""

    name: str
    node: str
    dtype: Any
    shape: Shape | None
    optional: bool = False

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of ``shape`` can be fed."""
        if self.shape is None:
            return True
        known = zip(self.shape, shape, strict=False)
        return len(self.shape) == len(shape) and all(own in (None, size) for own, size in known)


@dataclass(frozen=True)
class Opened:
    """``variables`` and ``passed`` (other tensors from outside the graph) by their node; ``broken``
    says of nodes why neither they nor what needs them can run; ``labels`` are names for people to
    go by, for nodes named by chance; ``starts`` is what runs once before anything that looks things
    up in tables, to fill them."""

    scope: Scope
    library: Mapping[str, Any]
    versions: Any
    inputs: tuple[Input, ...]
    outputs: Mapping[Ref, str]
    variables: Mapping[str, Variable]
    provenance: Mapping[str, Json]
    passed: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    starts: Scope | None = None
    owner: Any = None
    """What must stay alive as long as the model: the owner of live variables."""

    @property
    def resources(self) -> dict[str, str]:
        """The nodes that stand for something outside the graph."""
        return {name: name for name in (*self.variables, *self.passed)}
