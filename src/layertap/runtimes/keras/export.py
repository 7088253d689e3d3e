"""A Keras model whose outputs are layers of another, which it shares its layers with.

The model is called on symbolic tensors, as when a Functional model is built. Layers that hold a
wanted layer are taken apart: their ``call`` runs on the symbolic tensors too, so that what is
inside becomes part of the new model's own graph.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from layertap.core.feeds import InputSpec
from layertap.core.graph import TapPoint
from layertap.core.names import unused
from layertap.errors import PlanError
from layertap.runtimes.keras.inputs import Inputs
from layertap.runtimes.keras.intercept import listening
from layertap.runtimes.keras.naming import Ownership, leaves, sublayers
from layertap.runtimes.keras.recorder import Recorder, Value

_NOT_IN_NAMES = re.compile(r"\W")


def extractor(
    model: Any, inputs: Inputs, specs: Sequence[InputSpec], taps: Sequence[TapPoint], *, whole: bool
) -> Any:
    """A Functional model that returns a dict of ``taps`` by name, from a dict of inputs by name or,
    where there is only one, from that input.

    ``whole``: with the model's own outputs before them. Layers, and so weights, are the same
    objects as in ``model``. Raises PlanError for taps that no layer returns, and for a model whose
    ``call`` does not run on symbolic tensors.
    """
    given = {spec.name: _symbolic(spec) for spec in specs}
    for tap in taps:
        if tap.kind not in ("activation", "output"):
            raise _no_output(tap.name, "no layer returns it")
    values = _symbolic_values(model, inputs, given, [tap.name for tap in taps])
    found = {value.name: value.tensor for value in values}
    for tap in taps:
        if tap.name not in found:
            raise _no_output(tap.name, "no layer returns it")
    kept = _own_outputs(values) if whole else {}
    outputs = kept | {tap.name: found[tap.name] for tap in taps}
    try:
        # A single input is taken as it is, several by their names.
        named = {tensor.name: tensor for tensor in given.values()}
        only = next(iter(named.values())) if len(named) == 1 else named
        return keras.Model(only, outputs, name=f"{model.name}_taps")
    except ValueError as error:
        raise PlanError(
            f"Keras cannot build the model: {error}", hint="give each layer a name of its own"
        ) from error


def _no_output(name: str, why: str) -> PlanError:
    return PlanError(
        f"{name!r} cannot be an output of a Keras model: {why}",
        hint="choose what a layer returns, or capture it instead",
    )


def save(model: Any, to: Path) -> None:
    """Write ``model`` to a ``.keras`` file, or else as a SavedModel folder.

    It appears complete or not at all. Raises PlanError for a path that is there already and is a
    folder, and for what Keras cannot save.
    """
    if to.is_dir():
        raise PlanError(f"{str(to)!r} is a folder already", hint="write to a new path")
    if not to.parent.is_dir():
        raise PlanError(f"there is no folder {str(to.parent)!r}", hint="make it first")
    with tempfile.TemporaryDirectory(prefix=".layertap-", dir=to.parent) as folder:
        partial = Path(folder, to.name)
        try:
            if to.suffix == ".keras":
                model.save(partial)
            else:
                _with_plain_names(model).export(str(partial), verbose=False)
        except Exception as error:
            raise PlanError(
                f"Keras cannot save the model: {str(error).partition(chr(10))[0]}",
                hint="end the path in .keras, or export without a path and save it yourself",
            ) from error
        partial.replace(to)


def _symbolic(spec: InputSpec) -> Any:
    if spec.shape is None or spec.dtype is None:
        raise PlanError(
            f"the shape of the input {spec.name!r} is not known yet",
            hint="give the model an example first: model.trace(x)",
        )
    return keras.Input(spec.shape[1:], dtype=spec.dtype, name=_NOT_IN_NAMES.sub("_", spec.name))


def _symbolic_values(
    model: Any, inputs: Inputs, given: Mapping[str, Any], wanted: Sequence[str]
) -> list[Value]:
    """What the layers of ``model`` return for symbolic inputs, in order."""
    values: list[Value] = []
    ownership = Ownership(model)
    recorder = Recorder(
        model,
        values.append,
        ownership=ownership,
        reserved=given,
        operands=True,
        is_value=lambda leaf: isinstance(leaf, keras.KerasTensor),
    )
    uncounted = [re.sub(r"@\d+", "", name) for name in wanted]
    opened = {id(model), *_holders(model, "", uncounted, ownership)}
    try:
        with _taken_apart(opened), listening(recorder, alone=True):
            inputs.call(model, list(given), list(given.values()))
    except Exception as error:
        raise PlanError(
            "the model's call does not run on symbolic tensors: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            hint="use keras.ops in it; or, on TensorFlow, open tf.function(lambda x: model(x)), "
            "which can be traced and exported as a SavedModel",
        ) from error
    return values


def _holders(layer: Any, path: str, wanted: Sequence[str], ownership: Ownership) -> Iterator[int]:
    """Ids of the layers below ``layer`` that hold one of ``wanted``. Raises PlanError where that is
    a recurrent layer."""
    for child in sublayers(layer):
        inner = f"{path}{ownership.local_name(layer, child)}/"
        inside = [name for name in wanted if name.startswith(inner)]
        if inside and isinstance(child, keras.layers.RNN):
            raise _no_output(inside[0], "it is computed in the loop of a recurrent layer")
        if inside:
            yield id(child)
            yield from _holders(child, inner, wanted, ownership)


@contextmanager
def _taken_apart(layers: set[int]) -> Iterator[None]:
    """While this thread calls one of ``layers`` (by id), its ``call`` runs and nothing else."""
    original: Callable[..., Any] = keras.Layer.__call__
    thread = threading.get_ident()

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(layer) not in layers or threading.get_ident() != thread:
            return original(layer, *args, **kwargs)
        # Unset, so that the new model can still be trained.
        kwargs.pop("training", None)
        return layer.call(*args, **kwargs)

    keras.Layer.__call__ = call
    try:
        yield
    finally:
        keras.Layer.__call__ = original


def _own_outputs(values: Sequence[Value]) -> dict[str, Any]:
    """The model's outputs, by the names of the layers that return them."""
    found: dict[str, Any] = {}
    for output in (value for value in values if value.kind == "output"):
        makers = [v for v in values if v.kind != "output" and v.tensor is output.tensor]
        found[makers[-1].name if makers else output.name] = output.tensor
    return found


def _with_plain_names(model: Any) -> Any:
    """The same model with outputs that a SavedModel's signature can name."""
    outputs: dict[str, Any] = {}
    for path, tensor in leaves(model.output):
        outputs[unused(_NOT_IN_NAMES.sub("_", ".".join(map(str, path))), outputs)] = tensor
    return keras.Model(model.input, outputs, name=model.name)


__all__ = ["extractor", "save"]
