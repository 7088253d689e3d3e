"""The names that a file's signatures give to inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from layertap.core.graph import Graph, TapPoint
from layertap.core.inputs import InputSpec
from layertap.errors import SourceError
from layertap.runtimes.registry import source_path
from layertap.tflite.graph import MAIN
from layertap.tflite.model import Signature, TfliteModel


def signature_of(model: TfliteModel, key: str | None) -> Signature | None:
    """The signature called ``key``, None where none is asked for. Raises SourceError."""
    for signature in model.signatures:
        if signature.key == key:
            return signature
    if key is None:
        return None
    keys = ", ".join(repr(signature.key) for signature in model.signatures)
    raise SourceError(
        f"the model has no signature {key!r}", hint=f"it has {keys}" if keys else "it has none"
    )


def asked_for(source: Any, signature: str | None) -> tuple[Any, str | None]:
    """The file, and the signature that is asked for by ``file#signature`` or by name. Raises
    SourceError where these are two."""
    if not isinstance(source, str | Path):
        return source, signature  # whoever reads it says what it is
    path = source_path(source)
    part = str(source)[len(str(path)) + 1 :] if path != Path(source) else ""
    if part and signature not in (None, part):
        raise SourceError(
            f"two signatures are asked for, {part!r} and {signature!r}", hint="give one of them"
        )
    return path, signature or part or None


class SignatureNames:
    """The names that the signatures of a subgraph agree on: those of ``chosen``, or of all that
    run the first subgraph."""

    def __init__(self, model: TfliteModel, chosen: Signature | None) -> None:
        self.chosen = chosen
        self.subgraph = MAIN if chosen is None else chosen.subgraph
        signatures = [s for s in model.signatures if s.subgraph == MAIN] if not chosen else [chosen]
        self._inputs = _by_index(pair for s in signatures for pair in s.inputs)
        self._all = _by_index(pair for s in signatures for pair in (*s.inputs, *s.outputs))

    def given_to(self, graph: Graph) -> Graph:
        """``graph`` whose inputs and outputs go by these names too, unless a tensor has them."""
        return Graph(map(partial(self._named, graph), graph), complete=graph.complete)

    def ordered(self, inputs: Sequence[InputSpec], graph: Graph) -> list[InputSpec]:
        """``inputs``, which go by these names too, in the order of the chosen signature."""
        place = {} if self.chosen is None else {i: n for n, (_, i) in enumerate(self.chosen.inputs)}
        indices = [graph[spec.name].index for spec in inputs]
        named = [
            (place.get(index, len(place)), replace(spec, also=tuple(self._inputs.get(index, ()))))
            for index, spec in zip(indices, inputs, strict=True)
        ]
        return [spec for _, spec in sorted(named, key=itemgetter(0))]

    def _named(self, graph: Graph, tap: TapPoint) -> TapPoint:
        names = self._all.get(tap.index, []) if tap.subgraph == self.subgraph else []
        return replace(tap, also=tuple(name for name in names if name not in graph))


def _by_index(pairs: Iterable[tuple[str, int]]) -> dict[int, list[str]]:
    """The names of each tensor, without those that stand for different ones."""
    meant: dict[str, set[int]] = {}
    for name, index in pairs:
        meant.setdefault(name, set()).add(index)
    names: dict[int, list[str]] = {}
    for name, indices in meant.items():
        if len(indices) == 1:
            names.setdefault(indices.pop(), []).append(name)
    return names


__all__ = ["SignatureNames", "asked_for", "signature_of"]
