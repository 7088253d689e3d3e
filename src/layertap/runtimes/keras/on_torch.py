"""Keras on PyTorch: the model is called as it is, and values are copied as they appear."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import keras
import ml_dtypes
import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from layertap.core.dtypes import Array
from layertap.runtimes.keras.engine import (
    Compiled,
    Shape,
    Target,
    Traceable,
    call_abstractly,
    in_order,
)
from layertap.runtimes.keras.recorder import Value

_log = logging.getLogger(__name__)


class _AllRead(BaseException):
    """Ends the call after the last wanted value; no layer may take it for its own failure."""


class Torch:
    name = "torch"
    version: str = torch.__version__
    loops = True
    bit_exact = True
    reason = ""

    def call_abstractly(self, function: Traceable, specs: Sequence[tuple[Shape, str]]) -> None:
        try:
            _call_on_fakes(function, specs)
        except Exception as error:
            # Some operations look at values. Keras's way knows those, not each dtype (a layer
            # whose weights are cast).
            _log.debug("no fake tensors: %s", error)
            call_abstractly(function, specs)

    def reach(self) -> Callable[[Any], str]:
        def reason(tensor: Any) -> str:
            dense = not isinstance(tensor, torch.Tensor) or tensor.layout is torch.strided
            return "" if dense else "it is a sparse tensor"

        return reason

    def copy(self, tensor: Any) -> Array | None:
        return None if torch.compiler.is_compiling() else to_numpy(tensor)

    def compile(self, target: Target, wanted: Sequence[str]) -> Compiled:
        def run(arrays: Sequence[Array]) -> list[Array]:
            found: dict[str, Array] = {}
            missing = set(wanted)

            def keep(value: Value) -> None:
                if value.name in missing:
                    found[value.name] = to_numpy(value.tensor)
                    missing.discard(value.name)
                    if not missing:
                        raise _AllRead

            tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
            try:
                with torch.no_grad(), keras.StatelessScope():
                    target.run(tensors, keep, missing)
            except _AllRead:
                pass
            return in_order(found, wanted)

        return run


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
