"""The tap points of a model, found by calling it on abstract tensors; nothing is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from layertap.core.dtypes import numpy_dtype
from layertap.core.graph import Per, TapPoint
from layertap.core.names import unused
from layertap.runtimes.keras.engine import Engine, Shape, Target, call_abstractly
from layertap.runtimes.keras.inputs import Inputs
from layertap.runtimes.keras.naming import Weight
from layertap.runtimes.keras.recorder import Value, settled

BATCHES = (2, 3)
"""An axis 0 of these sizes for these batch sizes is the batch axis."""
FREE = (256, 384)
"""Stand-ins for other sizes that a model leaves open; far apart, so that they still differ
after strided layers."""


@dataclass(frozen=True)
class Described:
    """One value of a call on abstract tensors: no tensor any more. ``shape`` is that of one
    iteration where loops are around it."""

    value: Value
    dtype: str
    shape: Shape | None


def build(model: Any, inputs: Inputs, specs: Mapping[str, tuple[Shape, str]]) -> None:
    """Create the weights of layers that have none yet, as a first call would."""
    call_abstractly(lambda tensors: inputs.call(model, tuple(specs), tensors), list(specs.values()))


def is_built(model: Any) -> bool:
    """Whether every layer that the model holds has its weights."""
    return all(layer.built for layer in model._flatten_layers())


def probe(
    target: Target, engine: Engine, specs: Mapping[str, tuple[Shape, str]], *, operations: bool
) -> list[Described]:
    """Every tap point of one call with inputs of these shapes and dtypes; ``operations``: those
    inside of layers too."""
    found: list[Described] = []

    def observe(tensors: Sequence[Any]) -> None:
        # Keras may call twice: the second time for real what cannot be called abstractly.
        recorder = target.recorder(dict(zip(specs, tensors, strict=True)))
        values = engine.observe(target, tensors, recorder, operations=operations)
        found[:] = [_describe(value) for value in settled(values)]

    engine.call_abstractly(observe, list(specs.values()))
    return found


def _describe(value: Value) -> Described:
    tensor, value.tensor = value.tensor, None
    try:
        dtype = str(keras.backend.standardize_dtype(tensor.dtype))
    except ValueError:
        dtype = str(tensor.dtype)
    if numpy_dtype(dtype) is None and not value.reason:
        value.reason = f"its values are {dtype}, for which NumPy has no type"
    return Described(value, dtype, _shape(tensor))


def _shape(tensor: Any) -> Shape | None:
    try:
        return tuple(None if size is None else int(size) for size in tensor.shape)
    except ValueError:
        return None


def merge(
    first: list[Described], second: list[Described], batches: tuple[int | None, int | None]
) -> list[tuple[Described, Per]]:
    """One list from two calls that differ in their sizes: a size that differs is open (None).

    Axis 0 counts samples where it has the size of the batch in both calls.
    """
    others = {one.value.name: one for one in second}
    return [_merge(one, others.get(one.value.name, one), batches) for one in first]


def _merge(
    one: Described, other: Described, batches: tuple[int | None, int | None]
) -> tuple[Described, Per]:
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return replace(one, shape=None), "sample"
    sizes = zip((one.shape[:1], other.shape[:1]), batches, strict=True)
    per: Per = "sample" if all(axis in ((None,), (size,)) for axis, size in sizes) else "batch"
    shape = _common(one.shape, other.shape)
    loops = _common(one.value.loops, other.value.loops)
    # Iterations come after the samples, as time does, and first where there are none.
    shape = (*shape[:1], *loops, *shape[1:]) if per == "sample" else (*loops, *shape)
    return replace(one, shape=shape), per


def _common(first: Shape, second: Shape) -> Shape:
    """Sizes that differ are open."""
    if len(first) != len(second):
        return (None,) * len(first)
    return tuple(a if a == b else None for a, b in zip(first, second, strict=True))


def tap_points(
    inputs: Sequence[tuple[str, str, Shape | None]],
    weights: Sequence[Weight],
    values: Sequence[tuple[Described, Per]],
) -> Iterator[TapPoint]:
    """Inputs, weights, then computed values, numbered from 0."""
    used = {name for name, _, _ in inputs} | {one.value.name for one, _ in values}
    index = 0
    for name, dtype, shape in inputs:
        reason = "" if numpy_dtype(dtype) is not None else f"its values are {dtype}"
        yield TapPoint(name, "input", "InputLayer", dtype, shape, index, untappable=reason)
        index += 1
    for weight in weights:
        yield weight_tap(weight, unused(weight.name, used), index)
        index += 1
    for one, per in values:
        operands = tuple(name for name in one.value.operands if name in used)
        yield TapPoint(
            one.value.name,
            one.value.kind,
            one.value.op,
            one.dtype,
            one.shape,
            index,
            per=per,
            operands=tuple(name for name in operands if name != one.value.name),
            untappable=one.value.reason,
            source=one.value.source,
        )
        index += 1


def weight_tap(weight: Weight, name: str, index: int) -> TapPoint:
    variable = weight.variable
    dtype = str(keras.backend.standardize_dtype(variable.dtype))
    reason = "" if numpy_dtype(dtype) is not None else f"its values are {dtype}"
    shape = tuple(variable.shape)
    return TapPoint(name, "weight", weight.op, dtype, shape, index, per="run", untappable=reason)
