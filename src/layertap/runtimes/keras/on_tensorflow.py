"""Keras on TensorFlow: one ``tf.function`` per selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from layertap.core.dtypes import Array
from layertap.runtimes.keras.engine import Compiled, Target

_Key = tuple[tuple[tuple[int | None, ...], Any], ...]


class TensorFlow:
    name = "tensorflow"
    version: str = tf.__version__
    loops = False
    bit_exact = True
    reason = ""

    def reach(self) -> Callable[[Any], str]:
        outermost = tf.compat.v1.get_default_graph()

        def reason(tensor: Any) -> str:
            if isinstance(tensor, tf.RaggedTensor | tf.SparseTensor):
                return "it is a ragged or sparse tensor"
            graph = getattr(tensor, "graph", outermost) if tf.is_tensor(tensor) else outermost
            return "" if graph is outermost else _inner(getattr(graph, "name", ""))

        return reason

    def compile(self, target: Target, wanted: Sequence[str]) -> Compiled:
        traced: dict[_Key, Any] = {}

        @tf.function(autograph=False)
        def function(*tensors: Any) -> list[Any]:
            with keras.StatelessScope():
                return target.values(tensors, wanted)

        def trace(arrays: Sequence[Array]) -> Any:
            any_batch = [
                tf.TensorSpec(_relaxed(array.shape, declared), array.dtype)
                for array, declared in zip(arrays, target.shapes, strict=True)
            ]
            try:
                return function.get_concrete_function(*any_batch)
            except Exception:
                # Some models cannot be traced without knowing the size of the batch.
                exact = [tf.TensorSpec(array.shape, array.dtype) for array in arrays]
                return function.get_concrete_function(*exact)

        def run(arrays: Sequence[Array]) -> list[Array]:
            key = tuple((array.shape, array.dtype) for array in arrays)
            concrete = traced.get(key)
            if concrete is None:
                concrete = next(
                    (one for one in traced.values() if _takes(one, arrays)), None
                ) or trace(arrays)
                traced[key] = concrete
            tensors = [tf.constant(array) for array in arrays]
            return [value.numpy() for value in concrete(*tensors)]

        return run


def _relaxed(
    shape: tuple[int, ...], declared: tuple[int | None, ...] | None
) -> tuple[int | None, ...]:
    if declared is not None and len(declared) == len(shape):
        return declared
    return (None, *shape[1:]) if shape else ()


def _takes(concrete: Any, arrays: Sequence[Array]) -> bool:
    specs = concrete.structured_input_signature[0]
    return all(
        spec.shape.is_compatible_with(array.shape) and spec.dtype == tf.as_dtype(array.dtype)
        for spec, array in zip(specs, arrays, strict=True)
    )


def _inner(graph: str) -> str:
    if "while" in graph or "scan" in graph or "map" in graph:
        return "it is computed inside a loop, whose inner values never leave it"
    if "cond" in graph or "true" in graph or "false" in graph:
        return "it is computed inside a conditional branch, whose inner values never leave it"
    return "it is computed inside a nested compiled function, whose inner values never leave it"


ENGINE = TensorFlow()
