"""Private members of TensorFlow that values go through, each tried when it is loaded.

Where one is gone or does something else, a slower public way takes its place, and :func:`report`
says so, which goes into the provenance of every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import tensorflow as tf

from layertap.core.dtypes import Array

_report: dict[str, str] = {}


def report() -> Mapping[str, str]:
    """What did not pass its test, with what is done instead; empty when all is well."""
    return dict(_report)


def _tried(name: str, test: Callable[[], bool], otherwise: str) -> bool:
    try:
        passed = test()
    except Exception:  # whatever a member that changed raises, it is not what it was
        passed = False
    if not passed:
        _report[name] = otherwise
    return passed


def _eager_mode() -> AbstractContextManager[None]:
    mode: AbstractContextManager[None] = tf.__internal__.eager_context.eager_mode()
    return mode


def _is_eager_inside_a_graph() -> bool:
    with tf.Graph().as_default(), _eager_mode():
        return tf.executing_eagerly() and int(tf.constant(3)) == 3


def eager_mode() -> AbstractContextManager[None]:
    """Operations run at once in there, also where the caller builds a graph."""
    return _eager_mode() if _EAGER else tf.init_scope()


_EAGER = _tried(
    "tf.__internal__.eager_context.eager_mode",
    _is_eager_inside_a_graph,
    "tf.init_scope: graphs cannot be read within code that builds one in TensorFlow 1's way",
)


def _gives_its_buffer() -> bool:
    with eager_mode():
        tensor = tf.constant([[1.0, 2.0]]) * 2.0
        value = tensor._numpy()
        own = isinstance(value, np.ndarray) and value.flags.writeable
        return own and np.array_equal(value, tensor.numpy()) and value.shape == (1, 2)


_BUFFER = _tried("EagerTensor._numpy", _gives_its_buffer, "every value is copied once more")


def without_copy(tensor: Any) -> Array:
    """The value of an eager tensor; where that is possible in the memory that it is in."""
    return tensor._numpy() if _BUFFER else tensor.numpy()  # type: ignore[no-any-return]


def _calls_flat() -> bool:
    with eager_mode():
        held = tf.Variable(2.0)
        spec = tf.TensorSpec((None,))
        function = tf.function(lambda x: [x * held, x + 1.0]).get_concrete_function(spec)
        given = [tf.constant([1.0, 2.0])]
        results = function._call_flat(given, function.captured_inputs)
        return [one.numpy().tolist() for one in results] == [[2.0, 4.0], [2.0, 3.0]]


_FLAT = _tried("ConcreteFunction._call_flat", _calls_flat, "each call matches its arguments first")


def call_flat(function: Any, given: list[Any]) -> Any:
    """The results of a concrete function in order. Where it can be, without matching arguments to
    the signature, which takes longer than small operations do."""
    if _FLAT:
        return function._call_flat(given, function.captured_inputs)
    return tf.nest.flatten(function(*given))


def is_eager(tensor: Any) -> bool:
    """Whether a tensor has a value: it is no tensor of a graph."""
    return isinstance(tensor, _EAGER_TENSOR) if _EAGER_TENSOR else hasattr(tensor, "numpy")


def _knows_values() -> bool:
    kind = tf.__internal__.EagerTensor
    with eager_mode():
        value = isinstance(tf.constant(1.0), kind)
    with tf.Graph().as_default():
        return value and not isinstance(tf.constant(1.0), kind)


_EAGER_TENSOR = (
    tf.__internal__.EagerTensor
    if _tried("tf.__internal__.EagerTensor", _knows_values, "it is asked for its method numpy")
    else None
)

__all__ = ["call_flat", "eager_mode", "is_eager", "report", "without_copy"]
