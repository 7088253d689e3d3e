"""Keras on JAX: one ``jax.jit`` per selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import keras
import numpy as np

from layertap.core.dtypes import Array
from layertap.core.following import Shape
from layertap.runtimes.keras.engine import (
    Compiled,
    Observed,
    Target,
    Traceable,
    call_abstractly,
    chain,
    in_order,
)
from layertap.runtimes.keras.intercept import LOOPS
from layertap.runtimes.keras.jax_operations import brought_out, retraced, trace
from layertap.runtimes.keras.jax_trail import trail
from layertap.runtimes.keras.recorder import Recorder, Value
from layertap.runtimes.keras.recurrent import Loop, heard_loop


class Jax:
    name = "jax"
    version: str = jax.__version__
    loops = False
    bit_exact = False
    internals: Mapping[str, str] = MappingProxyType({})
    reason = (
        "XLA fuses operations differently when values inside a fusion become outputs, "
        "which can change the last bits"
    )

    def call_abstractly(self, function: Traceable, specs: Sequence[tuple[Shape, str]]) -> None:
        call_abstractly(function, specs)

    def observe(
        self, target: Target, tensors: Sequence[Any], recorder: Recorder, *, operations: bool
    ) -> Observed:
        def call(tensors: Sequence[Any]) -> None:
            recorder.reserved = dict(zip(target.names, tensors, strict=True))
            target.run(tensors, recorder)

        closed, values = trace(
            recorder, call, (list(tensors),), operations=operations, sources=True
        )
        for value, found in values:
            shape, dtype = found.shape, found.equation.outvars[found.output].aval.dtype
            value.tensor = jax.ShapeDtypeStruct(shape, dtype)
            value.loops, value.reason = found.loops, value.reason or found.reason
        return Observed(
            [value for value, _ in values],
            trail(closed.jaxpr, target.names),
            [(found.path, found.output) for _, found in values],
        )

    def looks_at_values(self, error: BaseException) -> bool:
        kinds = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
        return any(isinstance(one, kinds) for one in chain(error))

    def copy(self, tensor: Any) -> Array | None:
        return None if isinstance(tensor, jax.core.Tracer) else np.array(tensor)

    def compile(self, target: Target, wanted: Sequence[str], *, operations: bool) -> Compiled:
        variables = list(target.model.variables)

        def call(values: Sequence[Any], tensors: Sequence[Any], recorder: Recorder) -> None:
            state = list(zip(variables, values, strict=True))
            target.run(tensors, recorder, keras.StatelessScope(state_mapping=state))

        def traced(values: Sequence[Any], tensors: Sequence[Any]) -> dict[str, Any]:
            found = None if operations else _plain(target, call, values, tensors, wanted)
            if found is None:
                recorder = target.recorder(wanted=wanted)
                found = brought_out(
                    recorder,
                    lambda values, tensors: call(values, tensors, recorder),
                    (values, tensors),
                    wanted,
                    operations=operations,
                )
            return in_order(found, wanted)

        compiled = jax.jit(traced)

        def run(arrays: Sequence[Array]) -> dict[str, Array]:
            values = compiled([variable.value for variable in variables], list(arrays))
            # JAX gives read-only views of its own buffers.
            return in_order({name: np.array(value) for name, value in values.items()}, wanted)

        return run


def _plain(
    target: Target, call: Any, values: Sequence[Any], tensors: Sequence[Any], wanted: Sequence[str]
) -> dict[str, Any] | None:
    """The wanted values, or None when one of them is inside of another trace."""
    found: dict[str, Any] = {}
    names = set(wanted)
    outermost = _trace(jax.numpy.zeros(()))
    inside = False

    def keep(value: Value) -> None:
        nonlocal inside
        if value.name in names:
            found[value.name] = value.tensor
            traced = isinstance(value.tensor, jax.core.Tracer)
            inside |= traced and _trace(value.tensor) is not outermost

    recorder = target.recorder(wanted=wanted)
    recorder.on_value = keep
    with retraced():
        call(values, tensors, recorder)
    return None if inside else found


def _trace(tensor: Any) -> Any:
    return getattr(tensor, "_trace", None)


def _scan_with_states(original: Any, loop: Loop, f: Any, init: Any, xs: Any, **options: Any) -> Any:
    """``jax.lax.scan`` over time steps, which also stacks the states that each leaves."""

    def with_states(states: Any, x: Any) -> Any:
        after, y = f(states, x)
        flat = keras.tree.flatten(after)
        return after, (y, {i: flat[i] for i in loop.wanted})

    last, (ys, steps) = original(f=with_states, init=init, xs=xs, **options)
    with loop.muted():
        for i, stacked in steps.items():
            # Backwards, scan stacks in the order of the inputs; the layer's own order is meant.
            loop.keep(i, jax.numpy.flip(stacked, axis=0) if options.get("reverse") else stacked)
    return last, ys


LOOPS.append((jax.lax, "scan", partial(heard_loop, with_states=_scan_with_states)))

ENGINE = Jax()
