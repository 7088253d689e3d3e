"""Keras on JAX: one ``jax.jit`` per selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import keras
import numpy as np

from layertap.core.dtypes import Array
from layertap.runtimes.keras.engine import Compiled, Shape, Target, Traceable, call_abstractly
from layertap.runtimes.keras.intercept import LOOPS
from layertap.runtimes.keras.recurrent import Loop, heard_loop


class Jax:
    name = "jax"
    version: str = jax.__version__
    loops = False
    bit_exact = False
    reason = (
        "XLA fuses operations differently when values inside a fusion become outputs, "
        "which can change the last bits"
    )

    def call_abstractly(self, function: Traceable, specs: Sequence[tuple[Shape, str]]) -> None:
        call_abstractly(function, specs)

    def reach(self) -> Callable[[Any], str]:
        outermost = _trace(jax.numpy.zeros(()))

        def reason(tensor: Any) -> str:
            if not isinstance(tensor, jax.Array | np.ndarray):
                return "it is a sparse array"
            if not isinstance(tensor, jax.core.Tracer) or _trace(tensor) is outermost:
                return ""
            return "it is computed inside a loop or another inner trace (scan, cond, vmap, remat)"

        return reason

    def copy(self, tensor: Any) -> Array | None:
        return None if isinstance(tensor, jax.core.Tracer) else np.array(tensor)

    def compile(self, target: Target, wanted: Sequence[str]) -> Compiled:
        variables = list(target.model.variables)

        def traced(values: Sequence[Any], tensors: Sequence[Any]) -> list[Any]:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return target.values(tensors, wanted)

        compiled = jax.jit(traced)

        def run(arrays: Sequence[Array]) -> list[Array]:
            values = compiled([variable.value for variable in variables], list(arrays))
            # JAX gives read-only views of its own buffers.
            return [np.array(value) for value in values]

        return run


def _trace(tensor: Any) -> Any:
    return getattr(tensor, "_trace", None)


def _scan_with_states(original: Any, loop: Loop, f: Any, init: Any, xs: Any, **options: Any) -> Any:
    """``jax.lax.scan`` over time steps, which also stacks the states that each leaves."""

    def with_states(states: Any, x: Any) -> Any:
        after, y = f(states, x)
        flat = keras.tree.flatten(after)
        return after, (y, {i: flat[i] for i in loop.wanted})

    last, (ys, steps) = original(f=with_states, init=init, xs=xs, **options)
    for i, stacked in steps.items():
        # Backwards, scan stacks in the order of the inputs; the layer's own order is meant.
        loop.keep(i, jax.numpy.flip(stacked, axis=0) if options.get("reverse") else stacked)
    return last, ys


LOOPS.append((jax.lax, "scan", partial(heard_loop, with_states=_scan_with_states)))

ENGINE = Jax()
