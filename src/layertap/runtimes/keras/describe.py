"""The tap points of a model, found by calling it on abstract tensors; nothing is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.following import (
    FOLLOWED,
    NO_AXIS,
    Followed,
    Key,
    Shape,
    Trail,
    follow,
    sample_axis,
)
from layertap.core.graph import TapPoint
from layertap.core.names import unused
from layertap.runtimes.keras.engine import Engine, Target, call_abstractly
from layertap.runtimes.keras.inputs import Inputs
from layertap.runtimes.keras.naming import Weight
from layertap.runtimes.keras.recorder import Value, settled

Specs = dict[str, tuple[Shape, str]]
"""Shapes and dtypes of inputs by name."""


@dataclass(frozen=True)
class Described:
    """One value of a call on abstract tensors: no tensor any more. ``shape`` is that of one
    iteration where loops are around it; ``key`` stands for it on the trail."""

    value: Value
    dtype: str
    shape: Shape | None
    key: Key | None = None


@dataclass(frozen=True)
class Probed:
    """Every value of one call on abstract tensors, and by which operations it came about."""

    values: Sequence[Described]
    trail: Trail | None

    @property
    def names(self) -> set[str]:
        return {one.value.name for one in self.values}


@dataclass(frozen=True)
class Known:
    """One value as it is for every batch size: axis ``axis`` counts samples, as far as anybody
    knows. ``evidence`` says how that is known, or why none does; empty where it is to be proven.
    """

    value: Value
    dtype: str
    shape: Shape | None
    axis: int | None
    evidence: str


def build(model: Any, inputs: Inputs, specs: Specs) -> None:
    """Create the weights of layers that have none yet, as a first call would."""
    call_abstractly(lambda tensors: inputs.call(model, tuple(specs), tensors), list(specs.values()))


def is_built(model: Any) -> bool:
    """Whether every layer that the model holds has its weights."""
    return all(layer.built for layer in model._flatten_layers())


def probe(target: Target, engine: Engine, specs: Specs, *, operations: bool) -> Probed:
    """Every tap point of one call with inputs of these shapes and dtypes; ``operations``: those
    inside of layers too."""
    probed = Probed((), None)

    def observe(tensors: Sequence[Any]) -> None:
        # Keras may call twice: the second time for real what cannot be called abstractly.
        nonlocal probed
        recorder = target.recorder(dict(zip(specs, tensors, strict=True)))
        seen = engine.observe(target, tensors, recorder, operations=operations)
        keys = {id(value): key for value, key in zip(seen.values, seen.keys, strict=True)}
        found = [_describe(value, keys.get(id(value))) for value in settled(seen.values)]
        probed = Probed(found, seen.trail)

    engine.call_abstractly(observe, list(specs.values()))
    return probed


def call(target: Target, engine: Engine, arrays: Mapping[str, Array]) -> Probed:
    """Every tap point of one call with values; the model's state stays as it is."""
    tensors = [keras.ops.convert_to_tensor(array) for array in arrays.values()]
    values: list[Value] = []
    recorder = target.recorder(dict(zip(arrays, tensors, strict=True)))
    recorder.on_value = values.append
    target.run(tensors, recorder, keras.StatelessScope())
    for value in values:
        if engine.copy(value.tensor) is None:
            value.reason = "the backend compiles the loop that it is in"
    return Probed([_describe(value, None) for value in settled(values)], None)


def _describe(value: Value, key: Key | None) -> Described:
    tensor, value.tensor = value.tensor, None
    try:
        dtype = str(keras.backend.standardize_dtype(tensor.dtype))
    except ValueError:
        dtype = str(tensor.dtype)
    if numpy_dtype(dtype) is None and not value.reason:
        value.reason = f"its values are {dtype}, for which NumPy has no type"
    return Described(value, dtype, _shape(tensor), key)


def _shape(tensor: Any) -> Shape | None:
    try:
        return tuple(None if size is None else int(size) for size in tensor.shape)
    except ValueError:
        return None


def merge(
    first: Probed,
    second: Probed,
    other: Probed,
    samples: tuple[int | None, int | None],
    *,
    exactly: bool,
) -> list[Known]:
    """One list from calls that differ in their sizes: a size that differs is open (None).

    ``first`` and ``second`` differ in nothing but the number of ``samples``, if in that. Where they
    do not, sizes equal to it are open too, unless the model takes ``exactly`` so many.
    """
    followed: Mapping[Key, Followed] = {}
    resized = (samples[0] or 0, samples[1] or 0)
    if first.trail and second.trail and resized[0] != resized[1]:
        followed = follow(first.trail, second.trail, resized)
    twins = {one.value.name: one for one in second.values}
    others = {one.value.name: one for one in other.values}
    found = [
        _merge(one, twins.get(one.value.name), others.get(one.value.name, one), followed, resized)
        for one in first.values
    ]
    return found if exactly or resized[0] != resized[1] else [_opened(o, resized[0]) for o in found]


def _opened(one: Known, samples: int) -> Known:
    """Without the sizes that may be those of the batch."""
    if one.shape is None:
        return one
    return replace(one, shape=tuple(None if size == samples else size for size in one.shape))


def _merge(
    one: Described,
    twin: Described | None,
    other: Described,
    followed: Mapping[Key, Followed],
    samples: tuple[int, int],
) -> Known:
    # The iterations of loops come first.
    shapes = [_whole(value) for value in (one, twin or one, other)]
    axis, evidence = (None, "") if twin is None else _axis(one, twin, followed, samples)
    shape = _common(_common(shapes[0], shapes[1]), shapes[2])
    return Known(one.value, one.dtype, shape, axis, evidence)


def _whole(one: Described) -> Shape | None:
    return None if one.shape is None else (*one.value.loops, *one.shape)


def _axis(
    one: Described, twin: Described, followed: Mapping[Key, Followed], samples: tuple[int, int]
) -> tuple[int | None, str]:
    if one.shape is None or twin.shape is None or None in one.shape:
        return None, ""
    # How often a loop runs may be unknown: that is not the number of samples.
    loops = one.value.loops if None in one.value.loops else ()
    before = one.shape if loops else _whole(one)
    after = twin.shape if loops else _whole(twin)
    if samples[0] == samples[1]:
        fits = [axis for axis, size in enumerate(before or ()) if size == samples[0]]
        return (fits[0] + len(loops), "") if fits else (None, NO_AXIS)
    axis, times = sample_axis(before, after, samples)
    if axis is None or times != 1:
        return None, NO_AXIS
    known = followed.get(one.key) if one.key == twin.key else None
    certain = known is not None and known.certain and known.shape == before
    return axis + len(loops), FOLLOWED if certain else ""


def common_specs(first: Specs, second: Specs) -> Specs:
    """What inputs of the shapes of both are."""
    return {
        name: (_common(shape, second[name][0]) or (), dtype)
        for name, (shape, dtype) in first.items()
    }


def _common(first: Shape | None, second: Shape | None) -> Shape | None:
    """Sizes that differ are open; None where the number of axes differs."""
    if first is None or second is None or len(first) != len(second):
        return None
    return tuple(a if a == b else None for a, b in zip(first, second, strict=True))


def tap_points(
    inputs: Sequence[tuple[str, str, Shape | None]],
    weights: Sequence[Weight],
    values: Sequence[Known],
) -> Iterator[TapPoint]:
    """Inputs, weights, then computed values, numbered from 0."""
    used = {name for name, _, _ in inputs} | {one.value.name for one in values}
    index = 0
    for name, dtype, shape in inputs:
        reason = "" if numpy_dtype(dtype) is not None else f"its values are {dtype}"
        yield TapPoint(name, "input", "InputLayer", dtype, shape, index, untappable=reason)
        index += 1
    for weight in weights:
        yield weight_tap(weight, unused(weight.name, used), index)
        index += 1
    for one in values:
        operands = (name for name in one.value.operands if name in used)
        yield TapPoint(
            one.value.name,
            one.value.kind,
            one.value.op,
            one.dtype,
            one.shape,
            index,
            per="batch" if one.axis is None else "sample",
            operands=tuple(name for name in operands if name != one.value.name),
            untappable=one.value.reason,
            source=one.value.source,
            batch_axis=one.axis or 0,
        )
        index += 1


def weight_tap(weight: Weight, name: str, index: int) -> TapPoint:
    variable = weight.variable
    dtype = str(keras.backend.standardize_dtype(variable.dtype))
    reason = "" if numpy_dtype(dtype) is not None else f"its values are {dtype}"
    shape = tuple(variable.shape)
    return TapPoint(name, "weight", weight.op, dtype, shape, index, per="run", untappable=reason)
