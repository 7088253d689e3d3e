"""Keras on TensorFlow: one ``tf.function`` per selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from layertap.core.dtypes import Array
from layertap.errors import LayertapError
from layertap.runtimes.keras.engine import Compiled, Shape, Target, Traceable, call_abstractly
from layertap.runtimes.keras.intercept import LOOPS
from layertap.runtimes.keras.recurrent import Loop, heard_loop
from layertap.runtimes.tfgraph.buffers import arrays as owned
from layertap.runtimes.tfgraph.buffers import given_away, without_shared

_Key = tuple[tuple[tuple[int, ...], Any], ...]


class TensorFlow:
    name = "tensorflow"
    version: str = tf.__version__
    loops = False
    bit_exact = False
    reason = (
        "TensorFlow's graph optimizer fuses and reorders operations (around sigmoid and swish, for "
        "instance) differently when values in between become outputs: the last bits can differ"
    )

    def call_abstractly(self, function: Traceable, specs: Sequence[tuple[Shape, str]]) -> None:
        call_abstractly(function, specs)

    def reach(self) -> Callable[[Any], str]:
        outermost = tf.compat.v1.get_default_graph()

        def reason(tensor: Any) -> str:
            if isinstance(tensor, tf.RaggedTensor | tf.SparseTensor):
                return "it is a ragged or sparse tensor"
            graph = getattr(tensor, "graph", outermost) if tf.is_tensor(tensor) else outermost
            return "" if graph is outermost else _inner(getattr(graph, "name", ""))

        return reason

    def copy(self, tensor: Any) -> Array | None:
        if not tf.is_tensor(tensor):
            return np.array(tensor)
        dense = tf.convert_to_tensor(tensor)
        return np.array(dense.numpy()) if isinstance(dense, tf.__internal__.EagerTensor) else None

    def compile(self, target: Target, wanted: Sequence[str]) -> Compiled:
        traced: dict[_Key, _Traced] = {}

        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def function(*tensors: Any) -> list[Any]:
            with keras.StatelessScope():
                return target.values(tensors, wanted)

        def run(arrays: Sequence[Array]) -> list[Array]:
            key = tuple((array.shape, array.dtype) for array in arrays)
            found = traced.get(key)
            if found is None:
                known = (one for one in traced.values() if one.takes(arrays))
                found = traced[key] = next(known, None) or _trace(function, arrays, target.shapes)
            return found(arrays)

        return run


class _Traced:
    """One concrete function, for any batch size where the model allows that."""

    def __init__(self, concrete: Any) -> None:
        self.concrete = concrete
        self.specs = concrete.structured_input_signature[0]
        self._given_away: list[bool] | None = None

    def _call(self, tensors: list[Any]) -> Any:
        """Without matching the arguments to the signature once more, which takes longer than the
        smaller layers do."""
        flat = getattr(self.concrete, "_call_flat", None)
        if flat is None:
            return self.concrete(*tensors)
        return flat(tensors, self.concrete.captured_inputs)

    def takes(self, arrays: Sequence[Array]) -> bool:
        return all(
            spec.shape.is_compatible_with(array.shape) and spec.dtype == tf.as_dtype(array.dtype)
            for spec, array in zip(self.specs, arrays, strict=True)
        )

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        results = self._call(list(map(tf.constant, arrays)))
        if self._given_away is None:
            self._given_away = without_shared(results, given_away(self.concrete.outputs))
        return owned(results, self._given_away)


def _trace(
    function: Any, arrays: Sequence[Array], declared: Sequence[tuple[int | None, ...] | None]
) -> _Traced:
    any_batch = [
        tf.TensorSpec(_relaxed(array.shape, shape), array.dtype)
        for array, shape in zip(arrays, declared, strict=True)
    ]
    try:
        return _Traced(function.get_concrete_function(*any_batch))
    except LayertapError:
        raise
    except Exception:
        # Some models cannot be traced without knowing the size of the batch.
        exact = [tf.TensorSpec(array.shape, array.dtype) for array in arrays]
        return _Traced(function.get_concrete_function(*exact))


def _relaxed(
    shape: tuple[int, ...], declared: tuple[int | None, ...] | None
) -> tuple[int | None, ...]:
    if declared is not None and len(declared) == len(shape):
        return declared
    return (None, *shape[1:]) if shape else ()


def _inner(graph: str) -> str:
    if "while" in graph or "scan" in graph or "map" in graph:
        return "it is computed inside a loop"
    if "cond" in graph or "true" in graph or "false" in graph:
        return "it is computed inside a conditional branch"
    return "it is computed inside a nested compiled function"


def _while_with_states(
    original: Any, loop: Loop, cond: Any, body: Any, loop_vars: Any, **options: Any
) -> Any:
    """``tf.while_loop`` over time steps, which also writes down the states that each leaves."""
    first = len(loop_vars) - loop.states
    initial = keras.tree.flatten(loop_vars[first:])
    length = loop.length()
    lists = {
        i: tf.TensorArray(initial[i].dtype, size=length, element_shape=initial[i].shape)
        for i in loop.wanted
    }

    def with_states(lists: Any, *variables: Any) -> Any:
        new = body(*variables)
        states = keras.tree.flatten(tuple(new)[first:])
        time = variables[0]
        written = {i: array.write(time, states[i]) for i, array in lists.items()}
        return (written, *new)

    written, *results = original(
        cond=lambda _, *variables: cond(*variables),
        body=with_states,
        loop_vars=(lists, *loop_vars),
        **options,
    )
    for i, array in written.items():
        loop.keep(i, array.stack())
    return tuple(results)


LOOPS.append((tf, "while_loop", partial(heard_loop, with_states=_while_with_states)))

ENGINE = TensorFlow()
