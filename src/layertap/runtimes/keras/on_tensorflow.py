"""Keras on TensorFlow: one ``tf.function`` per selection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial, wraps
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx

from layertap.core.dtypes import Array
from layertap.core.following import Shape
from layertap.errors import LayertapError
from layertap.runtimes.keras.engine import (
    Compiled,
    Observed,
    Target,
    Traceable,
    call_abstractly,
    chain,
    in_order,
)
from layertap.runtimes.keras.intercept import LOOPS, is_heard
from layertap.runtimes.keras.recorder import Recorder, Value
from layertap.runtimes.keras.recurrent import Loop, heard_loop
from layertap.runtimes.keras.tf_loops import Places, brought_out
from layertap.runtimes.keras.tf_operations import GraphOperations, trail
from layertap.runtimes.tfgraph.buffers import arrays as owned
from layertap.runtimes.tfgraph.buffers import given_away
from layertap.runtimes.tfgraph.internals import call_flat, is_eager, report

_Key = tuple[tuple[tuple[int, ...], Any], ...]


class TensorFlow:
    name = "tensorflow"
    version: str = tf.__version__
    loops = False
    bit_exact = False
    internals = report()
    reason = (
        "TensorFlow's graph optimizer fuses and reorders operations (around sigmoid and swish, for "
        "instance) differently when values in between become outputs: the last bits can differ"
    )

    def call_abstractly(self, function: Traceable, specs: Sequence[tuple[Shape, str]]) -> None:
        call_abstractly(function, specs)

    def observe(
        self, target: Target, tensors: Sequence[Any], recorder: Recorder, *, operations: bool
    ) -> Observed:
        values: list[Value] = []
        recorder.on_value = values.append
        if operations:
            recorder.watcher = GraphOperations(recorder, sources=True)
        target.run(tensors, recorder)
        places = Places(tf.compat.v1.get_default_graph())
        for value in values:
            if isinstance(value.tensor, tf.RaggedTensor | tf.SparseTensor):
                value.reason = "it is a ragged or sparse tensor"
            elif not value.reason:
                loops, value.reason = places.of(value.tensor)
                value.loops = (None,) * loops
        found = trail(tf.compat.v1.get_default_graph(), tensors)
        return Observed(values, found, [getattr(v.tensor, "name", None) for v in values])

    def looks_at_values(self, error: BaseException) -> bool:
        asked = (tf.errors.OperatorNotAllowedInGraphError, "as a Python `bool`")
        read = (NotImplementedError, "to a numpy array")
        return any(
            isinstance(one, kind) and text in str(one)
            for one in chain(error)
            for kind, text in (asked, read)
        )

    def copy(self, tensor: Any) -> Array | None:
        if not tf.is_tensor(tensor):
            return np.array(tensor)
        dense = tf.convert_to_tensor(tensor)
        return np.array(dense.numpy()) if is_eager(dense) else None

    def compile(self, target: Target, wanted: Sequence[str], *, operations: bool) -> Compiled:
        traced: dict[_Key, _Traced] = {}
        latest: dict[str, int] = {}

        def compute(*tensors: Any) -> list[Any]:
            found: dict[str, Any] = {}
            names = set(wanted)

            def keep(value: Value) -> None:
                if value.name in names:
                    found[value.name] = value.tensor

            recorder = target.recorder(wanted=names)
            recorder.on_value = keep
            if operations:
                recorder.watcher = GraphOperations(recorder, sources=False)
            target.run(tensors, recorder, keras.StatelessScope())
            chosen = in_order(found, wanted)
            latest.clear()
            distinct = _distinct(chosen, latest)
            return brought_out(distinct, tf.compat.v1.get_default_graph())

        def trace(arrays: Sequence[Array]) -> _Traced:
            if operations:
                found = _trace_sized(compute, arrays)
            else:
                found = _trace(tf.function(compute, autograph=False), arrays, target.shapes)
            found.places = dict(latest)
            return found

        def run(arrays: Sequence[Array]) -> dict[str, Array]:
            key = tuple((array.shape, array.dtype) for array in arrays)
            found = traced.get(key)
            if found is None:
                known = () if operations else traced.values()
                fits = next((one for one in known if one.takes(arrays)), None)
                found = traced[key] = fits or trace(arrays)
            return _shared(found(arrays), found.places)

        return run


def _distinct(chosen: Mapping[str, Any], places: dict[str, int]) -> list[Any]:
    """Each tensor once; ``places`` gets where that of each name is: what a layer returns is often
    what its last operation computed."""
    numbers: dict[int, int] = {}
    for name, tensor in chosen.items():
        places[name] = numbers.setdefault(id(tensor), len(numbers))
    return list({id(tensor): tensor for tensor in chosen.values()}.values())


def _shared(values: Sequence[Array], places: Mapping[str, int]) -> dict[str, Array]:
    """The values by name; those that have more than one name cannot be written to."""
    if len(places) > len(values):
        times = Counter(places.values())
        for place, count in times.items():
            if count > 1:
                values[place].flags.writeable = False
    return {name: values[place] for name, place in places.items()}


class _Traced:
    """One concrete function, for any batch size where the model allows that; ``sized``: for one,
    which only the trace knew."""

    def __init__(self, concrete: Any, *, sized: bool = False) -> None:
        self.concrete, self.sized = concrete, sized
        self.places: dict[str, int] = {}
        self.specs = concrete.structured_input_signature[0]
        self._given_away = given_away(concrete.outputs, sized=sized)

    def takes(self, arrays: Sequence[Array]) -> bool:
        return all(
            spec.shape.is_compatible_with(array.shape) and spec.dtype == tf.as_dtype(array.dtype)
            for spec, array in zip(self.specs, arrays, strict=True)
        )

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        results = call_flat(self.concrete, list(map(tf.constant, arrays)))
        return owned(results, self._given_away)


def _trace_sized(compute: Any, arrays: Sequence[Array]) -> _Traced:
    """For these shapes. Which operations a trace makes depends on what it knows of sizes: it is
    told all of them, as it was when the operations were listed."""

    def sized(*tensors: Any) -> list[Any]:
        known = list(map(tf.identity, tensors))
        for tensor, array in zip(known, arrays, strict=True):
            tensor.set_shape(array.shape)
        return compute(*known)  # type: ignore[no-any-return]

    specs = [tf.TensorSpec(_relaxed(array.shape, None), array.dtype) for array in arrays]
    function = tf.function(sized, autograph=False)
    return _Traced(function.get_concrete_function(*specs), sized=True)


def _trace(function: Any, arrays: Sequence[Array], declared: Sequence[Shape | None]) -> _Traced:
    exact = [tf.TensorSpec(array.shape, array.dtype) for array in arrays]
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
        return _Traced(function.get_concrete_function(*exact))


def _relaxed(
    shape: tuple[int, ...], declared: tuple[int | None, ...] | None
) -> tuple[int | None, ...]:
    if declared is not None and len(declared) == len(shape):
        return declared
    return (None, *shape[1:]) if shape else ()


def _while_with_states(
    original: Any, loop: Loop, cond: Any, body: Any, loop_vars: Any, **options: Any
) -> Any:
    """``tf.while_loop`` over time steps, which also writes down the states that each leaves."""
    first = len(loop_vars) - loop.states
    initial = keras.tree.flatten(loop_vars[first:])
    with loop.muted():
        length = loop.length()
        lists = {
            i: tf.TensorArray(initial[i].dtype, size=length, element_shape=initial[i].shape)
            for i in loop.wanted
        }

    def with_states(*variables: Any) -> Any:
        time, lists = variables[0], variables[-1]
        new = body(*variables[:-1])
        states = keras.tree.flatten(tuple(new)[first:])
        return (*new, {i: array.write(time, states[i]) for i, array in lists.items()})

    *results, written = original(
        cond=lambda *variables: cond(*variables[:-1]),
        body=with_states,
        loop_vars=(*loop_vars, lists),
        **options,
    )
    with loop.muted():
        for i, array in written.items():
            loop.keep(i, array.stack())
    return tuple(results)


_Function = type(tf.function(lambda: None))


def _inlined(original: Any) -> Any:
    """``tf.function``'s call, which in a trace that is listened to runs the Python function: traced
    anew, in the graph of the model, what is inside of it can be heard and read."""

    @wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        plain = type(self) is _Function and self.input_signature is None
        if not plain or not is_heard() or tf.executing_eagerly() or self._jit_compile:
            return original(self, *args, **kwargs)
        function = self.python_function
        if self._autograph:
            with ag_ctx.ControlStatusCtx(status=ag_ctx.Status.ENABLED):
                context = tf.__internal__.autograph.control_status_ctx()
                function = tf.__internal__.autograph.tf_convert(function, context)
                return function(*args, **kwargs)
        return function(*args, **kwargs)

    return call


LOOPS.append((tf, "while_loop", partial(heard_loop, with_states=_while_with_states)))
LOOPS.append((_Function, "__call__", _inlined))

ENGINE = TensorFlow()
