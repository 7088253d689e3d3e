"""What differs between Keras's backends: which values can leave a trace, and how to compile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import keras

from layertap.core.dtypes import Array
from layertap.core.following import Key, Shape, Trail
from layertap.errors import RunError
from layertap.runtimes.keras.intercept import listening
from layertap.runtimes.keras.naming import Ownership
from layertap.runtimes.keras.recorder import Recorder, Value

Compiled = Callable[[Sequence[Array]], dict[str, Array]]
"""Arrays in, one per input; the wanted values out by name, less those that the model did not
compute this time. What comes out is the caller's."""


Traceable = Callable[[Sequence[Any]], None]
"""A function of tensors that is called for what happens on the way, not for a result."""


@dataclass(frozen=True)
class Observed:
    """What a call on abstract tensors computes. ``trail``: by which operations, None where that is
    not known; ``keys``: what stands for each value there, None for one that is not there."""

    values: Sequence[Value]
    trail: Trail | None
    keys: Sequence[Key | None]


@dataclass(frozen=True)
class Target:
    """A model, a way to call it with one tensor per input, and the names in use for inputs."""

    model: Any
    call: Callable[[Sequence[Any]], Any]
    ownership: Ownership
    names: tuple[str, ...]
    shapes: tuple[Shape | None, ...]
    """Declared shapes of the inputs, where the model declares them."""
    fused: bool = True
    """Whether recurrent layers may run in fused kernels."""

    def recorder(
        self, inputs: Mapping[str, Any] | None = None, wanted: Collection[str] | None = None
    ) -> Recorder:
        """For one call, of which only ``wanted`` values are of interest; with ``inputs`` also for
        which value is computed from which."""
        return Recorder(
            self.model,
            lambda _: None,
            ownership=self.ownership,
            reserved=dict.fromkeys(self.names) if inputs is None else inputs,
            wants=(lambda _: True) if wanted is None else wanted.__contains__,
            operands=inputs is not None,
        )

    def run(
        self,
        tensors: Sequence[Any],
        recorder: Recorder,
        scope: AbstractContextManager[Any] | None = None,
    ) -> None:
        """Call the model while ``recorder`` listens. ``scope``, or else the caller, provides the
        StatelessScope in which the model's state stays as it is."""
        with listening(recorder, alone=True, fused=self.fused, scope=scope):
            self.call(tensors)


def in_order(found: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """Those of the ``wanted`` values that were found, in the order of the wanted ones."""
    return {name: found[name] for name in wanted if name in found}


class Engine(Protocol):
    """One Keras backend. ``internals`` are private members of it that did not pass their test, with
    what is done instead.

    ``loops``: layers called in a Python loop over time steps show up once for each step, so the
    graph depends on the length of the input.
    """

    name: str
    version: str
    loops: bool
    bit_exact: bool
    reason: str
    internals: Mapping[str, str]

    def call_abstractly(self, function: Traceable, specs: Sequence[tuple[Shape, str]]) -> None:
        """Call ``function`` on tensors of these shapes and dtypes that have no values; the model's
        state stays as it is."""
        ...

    def observe(
        self, target: Target, tensors: Sequence[Any], recorder: Recorder, *, operations: bool
    ) -> Observed:
        """Call ``target`` within :meth:`call_abstractly` and return every value; what has no shape
        and dtype of its own any more has a tensor-like thing that does. ``operations``: the
        results of single operations too."""
        ...

    def looks_at_values(self, error: BaseException) -> bool:
        """Whether a call failed since it wanted the value of a tensor that has none."""
        ...

    def copy(self, tensor: Any) -> Array | None:
        """The value of a tensor as an array of its own; None for one without a value, in a
        trace."""
        ...

    def compile(self, target: Target, wanted: Sequence[str], *, operations: bool) -> Compiled:
        """A function that computes the ``wanted`` values. Those inside of loops are stacked:
        (outer loop, ..., inner loop, *shape). ``operations``: some are of single operations."""
        ...


class _Probe(keras.Operation):  # type: ignore[misc]
    def __init__(self, function: Traceable) -> None:
        super().__init__(name="layertap_probe")
        self._function = function

    def call(self, *tensors: Any) -> list[Any]:
        self._function(tensors)
        return []


def call_abstractly(function: Traceable, specs: Sequence[tuple[Shape, str]]) -> None:
    """Call ``function`` on the abstract tensors that Keras infers shapes with. It may be called
    twice: the second time for real, on ones, what cannot be called abstractly."""
    _Probe(function).compute_output_spec(*(keras.KerasTensor(*spec) for spec in specs))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def run_eagerly(engine: Engine, target: Target, wanted: Sequence[str]) -> Compiled:
    """Like :meth:`Engine.compile` for layers outside of loops, without the backend's compiler: each
    operation runs by itself, as in ``model(x)``."""
    names = set(wanted)

    def run(arrays: Sequence[Array]) -> dict[str, Array]:
        found: dict[str, Any] = {}

        def keep(value: Value) -> None:
            if value.name in names:
                found[value.name] = value.tensor

        recorder = target.recorder(wanted=names)
        recorder.on_value = keep
        tensors = list(map(keras.ops.convert_to_tensor, arrays))
        target.run(tensors, recorder, keras.StatelessScope())
        return {name: _own(engine, name, one) for name, one in in_order(found, wanted).items()}

    return run


def _own(engine: Engine, name: str, tensor: Any) -> Array:
    value = engine.copy(tensor)
    if value is None:
        raise RunError(
            f"{name!r} has no value: the backend compiles the loop it is in",
            hint="open the model without eager=True",
        )
    return value


def load_engine() -> Engine:
    """The engine for the backend that Keras runs on."""
    name = keras.backend.backend()
    module = import_module(f"layertap.runtimes.keras.on_{name}")
    engine: Engine = module.ENGINE
    return engine
