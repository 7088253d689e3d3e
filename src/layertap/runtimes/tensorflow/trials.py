"""A graph for several sizes of its inputs: shapes, and the axis that counts samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from layertap.core.following import (
    FOLLOWED,
    FREE,
    NO_AXIS,
    Followed,
    Key,
    follow,
    sample_axis,
)
from layertap.errors import CorruptModel
from layertap.runtimes.tensorflow.batching import Batching
from layertap.runtimes.tensorflow.opened import Opened
from layertap.runtimes.tfgraph.infer import Path, Shape, Type, Types, infer
from layertap.runtimes.tfgraph.scope import Ref
from layertap.runtimes.tfgraph.steps import trail


class Trials:
    """``types`` of all tensors: for two batch sizes, and for the second with other open sizes.

    Raises CorruptModel when TensorFlow refuses the graph.
    """

    def __init__(self, opened: Opened, batching: Batching) -> None:
        self._opened, self._batching = opened, batching
        self.types = _types(opened, batching)
        self._followed = self._follow()

    def axis(self, path: Path, ref: Ref) -> tuple[int | None, str]:
        """The axis of a computed tensor that counts samples, as far as anybody knows, and how it is
        known, or why there is none; empty where that is to be proven."""
        one, two, _ = (types[path][ref].shape for types in self.types)
        size = self._batching.size
        if one is None or two is None:
            return None, ""
        if size is not None:
            fits = [axis for axis, length in enumerate(one) if length == size]
            return (fits[0], "") if fits else (None, NO_AXIS)
        axis, times = sample_axis(one, two, self._batching.sizes())
        if axis is None or times != 1:
            return None, "" if None in one else NO_AXIS
        known = self._followed.get((path, ref))
        return axis, FOLLOWED if known is not None and known.certain else ""

    def _follow(self) -> Mapping[Key, Followed]:
        """What is known of the tensors outside of loops."""
        sizes, (first, second, _) = self._batching.sizes(), self.types
        if first is second or sizes[0] == sizes[1]:
            return {}
        scope, fed = self._opened.scope, [one.node for one in self._opened.inputs]
        return follow(trail(scope, first, fed), trail(scope, second, fed), sizes)


def _types(opened: Opened, batching: Batching) -> tuple[Types, Types, Types]:
    one, two = batching.sizes()
    fixed = batching.size
    ways: list[tuple[tuple[int | None, int | None], ...]] = [
        ((one, FREE[0]), (two, FREE[0]), (two, FREE[1])),
        # Sizes that the graph leaves open may have to fit together in ways that only it knows,
        ((one, None), (two, None), (two, None)),
        # or be larger than any that comes to mind.
        ((fixed, None), (fixed, None), (fixed, None)),
    ]
    for sizes in ways[:-1]:
        try:
            return _trials(opened, batching, sizes)
        except CorruptModel:
            continue
    return _trials(opened, batching, ways[-1])


def _trials(
    opened: Opened, batching: Batching, sizes: tuple[tuple[int | None, int | None], ...]
) -> tuple[Types, Types, Types]:
    known: dict[str, Types] = {}
    found: list[Types] = []
    for samples, free in sizes:
        shapes = [batching.trial(one, samples, free) for one in opened.inputs]
        if repr(shapes) not in known:
            known[repr(shapes)] = _trial(opened, shapes)
        found.append(known[repr(shapes)])
    return found[0], found[1], found[2]


def _trial(opened: Opened, shapes: Sequence[Shape | None]) -> Types:
    known = {
        name: Type(tf.resource, (), (variable.dtype, variable.shape))
        for name, variable in opened.variables.items()
    }
    for name, tensor in opened.passed.items():
        shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
        known[name] = Type(tensor.dtype, shape)
    for one, shape in zip(opened.inputs, shapes, strict=True):
        known[one.node] = Type(one.dtype, shape)
    return infer(opened.scope, known, opened.versions)
