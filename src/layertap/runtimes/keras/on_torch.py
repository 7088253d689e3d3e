"""Keras on PyTorch: the model is called as it is, and values are copied as they appear."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any

import keras
import ml_dtypes
import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from layertap.core.dtypes import Array
from layertap.core.following import Shape
from layertap.runtimes.keras.engine import (
    Compiled,
    Observed,
    Target,
    Traceable,
    call_abstractly,
    in_order,
)
from layertap.runtimes.keras.recorder import Recorder, Value
from layertap.runtimes.keras.torch_operations import FunctionCalls
from layertap.runtimes.keras.torch_trail import Dispatched

_log = logging.getLogger(__name__)


class _AllRead(BaseException):
    """Ends the call after the last wanted value; no layer may take it for its own failure."""


class Torch:
    name = "torch"
    version: str = torch.__version__
    loops = True
    bit_exact = True
    internals: Mapping[str, str] = MappingProxyType({})
    reason = ""

    def call_abstractly(self, function: Traceable, specs: Sequence[tuple[Shape, str]]) -> None:
        try:
            _call_on_fakes(function, specs)
        except Exception as error:
            # Some operations look at values. Keras's way knows those, not each dtype (a layer
            # whose weights are cast).
            _log.debug("no fake tensors: %s", error)
            call_abstractly(function, specs)

    def observe(
        self, target: Target, tensors: Sequence[Any], recorder: Recorder, *, operations: bool
    ) -> Observed:
        values: list[Value] = []
        recorder.on_value = values.append
        dispatched = Dispatched(dict(zip(target.names, tensors, strict=True)))
        with dispatched, _watched(recorder, operations, sources=True):
            target.run(tensors, recorder)
        for value in values:
            tensor = value.tensor
            if isinstance(tensor, torch.Tensor) and tensor.layout is not torch.strided:
                value.reason = "it is a sparse tensor"
        found = None if dispatched.written else dispatched.trail
        return Observed(values, found, [dispatched.key(value.tensor) for value in values])

    def looks_at_values(self, error: BaseException) -> bool:
        return False  # a model that does is called for real

    def copy(self, tensor: Any) -> Array | None:
        return None if torch.compiler.is_compiling() else to_numpy(tensor)

    def compile(self, target: Target, wanted: Sequence[str], *, operations: bool) -> Compiled:
        def run(arrays: Sequence[Array]) -> dict[str, Array]:
            found: dict[str, Array] = {}
            missing = set(wanted)

            def keep(value: Value) -> None:
                if value.name in missing:
                    with recorder.muting(True):
                        found[value.name] = to_numpy(value.tensor)
                    missing.discard(value.name)
                    if not missing:
                        raise _AllRead

            recorder = target.recorder(wanted=wanted)
            recorder.on_value = keep
            tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
            with suppress(_AllRead):
                target.run(tensors, recorder, _reading(recorder, operations))
            return in_order(found, wanted)

        return run


@contextmanager
def _reading(recorder: Recorder, operations: bool) -> Iterator[None]:
    watched = _watched(recorder, operations, sources=False)
    with torch.no_grad(), keras.StatelessScope(), watched:
        yield


@contextmanager
def _watched(recorder: Recorder, operations: bool, *, sources: bool) -> Iterator[None]:
    """Let ``recorder`` hear of single operations, if they are asked for."""
    if not operations:
        yield
        return
    recorder.watcher = calls = FunctionCalls(recorder, sources=sources)
    with calls:
        yield


def _call_on_fakes(function: Traceable, specs: Sequence[tuple[Shape, str]]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        tensors = [
            torch.empty([size or 1 for size in shape], dtype=getattr(torch, dtype))
            for shape, dtype in specs
        ]
        with keras.StatelessScope(), keras.SymbolicScope():
            function(tensors)


def to_numpy(tensor: Any) -> Array:
    """A copy of ``tensor``: operations in place may overwrite it later."""
    if not isinstance(tensor, torch.Tensor):
        return np.array(tensor)
    host = tensor.detach().cpu()
    if host.dtype is torch.bfloat16:
        return host.view(torch.int16).numpy().copy().view(ml_dtypes.bfloat16)
    return np.array(host.numpy())


ENGINE = Torch()
