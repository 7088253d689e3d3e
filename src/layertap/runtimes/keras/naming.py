"""Names of layers, their outputs and their weights within one model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from layertap.core.names import unused


def leaves(structure: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Path and value of every leaf of nested tuples, lists and dicts."""
    for path, leaf in keras.tree.flatten_with_path(structure):
        yield tuple(path), leaf


def output_suffix(path: Sequence[Any]) -> str:
    """What an output at ``path`` adds to its layer's name: nothing for the only or first one,
    ``:1`` for a further one, ``:pair.0`` inside a structure."""
    return "" if tuple(path) in ((), (0,)) else ":" + ".".join(map(str, path))


@dataclass(frozen=True)
class Weight:
    """A variable of a layer and its name: layer path, then variable name."""

    name: str
    op: str
    variable: Any


class Ownership:
    """The layers that a model holds: local names, unique among siblings, paths, and weights."""

    def __init__(self, root: Any) -> None:
        self.paths: set[str] = set()
        self._local: dict[tuple[int, int], str] = {}
        self.weights: list[Weight] = []
        self._walk(root, "", {id(root)}, set())

    def local_name(self, parent: Any, layer: Any) -> str:
        """The name of ``layer`` below ``parent``; the layer's own where it is not held there."""
        return self._local.get((id(parent), id(layer)), str(layer.name))

    def _walk(self, layer: Any, path: str, seen: set[int], names: set[str]) -> None:
        children = sublayers(layer)
        inherited = {id(v) for child in children for v in child.weights}
        for variable in layer.weights:
            if id(variable) not in inherited and id(variable) not in seen:
                seen.add(id(variable))
                name = unused("/".join(filter(None, (path, variable.name))), names)
                names.add(name)
                self.weights.append(Weight(name, type(layer).__name__, variable))
        taken: set[str] = set()
        for child in children:
            local = unused(child.name, taken)
            taken.add(local)
            self._local[id(layer), id(child)] = local
            below = f"{path}/{local}" if path else local
            self.paths.add(below)
            if id(child) not in seen:
                seen.add(id(child))
                self._walk(child, below, seen, names)


def is_node(model: Any, operation: Any) -> bool:
    """Whether ``operation`` is part of the graph of a Functional ``model``, as ``keras.ops`` on its
    symbolic tensors are."""
    return any(one is operation for one in getattr(model, "operations", ()))


def sublayers(layer: Any) -> list[Any]:
    """The layers that ``layer`` holds directly, each once."""
    if isinstance(layer, keras.Model):
        found = layer.layers
    else:
        found = layer._flatten_layers(include_self=False, recursive=False)
    return list({id(one): one for one in found}.values())
