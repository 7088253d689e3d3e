"""What a Keras model is fed, and how that becomes the arguments of a call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, InputSpec, as_array, is_array
from layertap.core.names import unused
from layertap.runtimes.keras.naming import leaves

_CONTEXT = ("training", "mask")
"""Arguments of ``call`` that Keras fills in by itself, as are those that end in ``_mask``."""


@dataclass(frozen=True)
class Inputs:
    """Inputs by name. ``known``: their number, order and structure are fixed by the model.

    ``structure`` is what the first argument of the call looks like, with one leaf per input, for
    models that take one argument. ``parameters`` are the names of the arguments of ``call``, and
    ``settings`` those of them that are given as flags, counts, texts or None, with their values.
    """

    specs: tuple[InputSpec, ...]
    known: bool
    structure: Any = None
    parameters: tuple[str, ...] = field(default=())
    settings: Mapping[str, Any] = field(default_factory=dict)

    def set_by(self, feed: Feed) -> Inputs:
        """The same with the settings in ``feed``: a compiled model is one for these."""
        if not self.parameters:
            return self
        found = {
            name: feed[name]
            for name in self.parameters
            if name in feed and isinstance(feed[name], int | str | None)
        }
        return replace(self, settings=found)

    def arrays(self, feed: Feed) -> dict[str, Any]:
        """The feed as NumPy arrays in the order in which the model takes them; of the members of a
        list, each has a name of its own (``inputs.0``)."""
        feed = _flat({name: feed[name] for name in feed if name not in self.settings})
        order = [spec.name for spec in self.specs if spec.name in feed]
        order += [name for name in feed if name not in order]
        fixed = {spec.name for spec in self.specs if spec.dtype is not None}
        return {
            name: np.asarray(feed[name]) if name in fixed else _standard(name, feed[name])
            for name in order
        }

    def call(self, model: Any, names: Sequence[str], tensors: Sequence[Any]) -> Any:
        """Call ``model`` in inference mode with one tensor per name."""
        given = dict(zip(names, tensors, strict=True))
        if self.structure is not None:
            flat = [given.get(spec.name) for spec in self.specs if spec.name[0] != "*"]
            return model(keras.tree.pack_sequence_as(self.structure, flat), training=False)
        packed = _packed(given, self.parameters)
        if set(packed) <= set(self.parameters):
            return model(**packed, **self.settings, training=False)
        return model(given, **self.settings, training=False)

    @property
    def batch(self) -> int | None:
        """The number of samples that the model was built for, if for one."""
        sizes = {spec.shape[0] for spec in self.specs if spec.shape}
        return next((size for size in sizes if size is not None), None)

    def of_any_batch(self) -> Inputs:
        """The same for any number of samples."""
        specs = (
            replace(spec, shape=(None, *spec.shape[1:])) if spec.shape else spec
            for spec in self.specs
        )
        return replace(self, specs=tuple(specs))

    def complete(self, names: Sequence[str]) -> bool:
        """Whether every required input is among ``names``."""
        needed = (s.name for s in self.specs if s.required and not s.name.startswith("*"))
        given = {*names, *(name.partition(".")[0] for name in names), *self.settings}
        return bool(names) and all(name in given for name in needed)


def inputs_of(model: Any, names: Sequence[str] | None = None) -> Inputs:
    """The inputs of ``model``, as far as it tells them before it is called.

    ``names`` names the members of the list that the model takes as its first argument, where the
    model does not tell.
    """
    symbolic = _symbolic_inputs(model)
    if symbolic is not None:
        return _functional(model, symbolic)
    if names is not None:
        specs = tuple(InputSpec(name) for name in ([names] if isinstance(names, str) else names))
        return Inputs(specs, known=True, structure=[0] * len(specs))
    return _built(model) or _called(model)


def _symbolic_inputs(model: Any) -> list[Any] | None:
    """The KerasTensors that a Functional or built Sequential model starts from."""
    if not isinstance(model, keras.Model):
        return None
    try:
        found = model.inputs
    except AttributeError:
        return None
    tensors = list(found) if isinstance(found, list | tuple) else []
    return tensors if tensors and all(isinstance(t, keras.KerasTensor) for t in tensors) else None


def _functional(model: Any, tensors: list[Any]) -> Inputs:
    structure: Any = tensors[0] if isinstance(model, keras.Sequential) else model.input
    names: list[str] = []
    for (path, _), tensor in zip(leaves(structure), tensors, strict=True):
        named = len(path) == 1 and isinstance(path[0], str)
        # An input that the user did not name has a name in its layer only.
        names.append(unused(path[0] if named else tensor._keras_history.operation.name, names))
    specs = tuple(
        InputSpec(
            name,
            tensor.dtype,
            tuple(tensor.shape),
            required=not getattr(tensor._keras_history.operation, "optional", False),
        )
        for name, tensor in zip(names, tensors, strict=True)
    )
    return Inputs(specs, known=True, structure=structure)


def _built(model: Any) -> Inputs | None:
    """Inputs of a subclassed model that was built with a list or dict of shapes."""
    shapes = getattr(model, "_build_shapes_dict", None)
    if not isinstance(shapes, dict) or len(shapes) != 1:
        return None
    (shape,) = shapes.values()
    parameter = next(iter(_parameters(model)), "inputs")
    if isinstance(shape, dict) and all(map(_is_shape, shape.values())):
        return Inputs(tuple(map(InputSpec, sorted(shape))), known=True, structure=shape_like(shape))
    if isinstance(shape, list | tuple) and shape and all(map(_is_shape, shape)):
        specs = tuple(InputSpec(f"{parameter}.{i}") for i in range(len(shape)))
        return Inputs(specs, known=True, structure=[0] * len(shape))
    return None


def shape_like(shapes: dict[str, Any]) -> dict[str, int]:
    return dict.fromkeys(shapes, 0)


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list | tuple) and all(d is None or isinstance(d, int) for d in shape)


def _called(model: Any) -> Inputs:
    """Inputs by the signature of ``call``; other names make up a dict as its first argument."""
    parameters = _parameters(model)
    needed = [name for name, default in parameters.items() if default is inspect.Parameter.empty]
    specs = tuple(InputSpec(name, required=len(needed) > 1, nested="list") for name in needed)
    return Inputs((*specs, InputSpec("**")), known=False, parameters=tuple(parameters))


def _parameters(model: Any) -> dict[str, Any]:
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {
        name: parameter.default
        for name, parameter in inspect.signature(model.call).parameters.items()
        if parameter.kind in named and name not in _CONTEXT and not name.endswith("_mask")
    }


def _flat(feed: Feed) -> dict[str, Any]:
    """Lists of arrays taken apart; a mapping that is all there is stands for what it holds."""
    if len(feed) == 1:
        (only,) = feed.values()
        if isinstance(only, Mapping):
            return dict(only)
    flat: dict[str, Any] = {}
    for name, value in feed.items():
        if isinstance(value, tuple) and any(map(is_array, value)):
            flat.update((f"{name}.{i}", one) for i, one in enumerate(value))
        else:
            flat[name] = value
    return flat


def _packed(given: Mapping[str, Any], parameters: Sequence[str]) -> dict[str, Any]:
    """The lists that :func:`_flat` took apart."""
    packed: dict[str, Any] = {}
    for name, value in given.items():
        owner, _, number = name.partition(".")
        if owner in parameters and number.isdecimal():
            packed.setdefault(owner, []).append(value)
        else:
            packed[name] = value
    return packed


def _standard(name: str, value: Any) -> Array:
    """``value`` as an array; float64 becomes Keras's default float, as in ``predict``."""
    array = as_array(name, value)
    return array.astype(keras.config.floatx()) if array.dtype == np.float64 else array
