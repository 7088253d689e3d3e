"""A batch that is run twice: whether its values are the same bits, and stay what they were."""

from __future__ import annotations

import hashlib

import numpy as np

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed
from layertap.core.graph import TapPoint
from layertap.core.protocols import Emit, Pass
from layertap.errors import RunError


class Verified:
    """A pass that runs each batch a second time before it hands on the values of the first.

    Raises RunError for a tap whose second value has other bits, or whose first one was changed
    meanwhile, by the model or by whoever else has its memory.
    """

    def __init__(self, run_pass: Pass) -> None:
        self._pass = run_pass

    def __call__(self, feed: Feed, emit: Emit) -> None:
        first: list[tuple[TapPoint, Array, bytes]] = []
        self._pass(feed, lambda tap, values: first.append((tap, values, _digest(values))))
        second: list[tuple[str, bytes]] = []
        self._pass(feed, lambda tap, values: second.append((tap.name, _digest(values))))
        for tap, values, digest in first:
            if _digest(values) != digest:
                raise RunError(
                    f"the value of {tap.name!r} was changed after it had been read",
                    hint="please report this model: a tap must be a copy",
                )
        for n, (tap, _, digest) in enumerate(first):
            if second[n : n + 1] != [(tap.name, digest)]:
                raise RunError(
                    f"{tap.name!r} is not the same bits when the batch is run a second time",
                    hint="the model draws random numbers of its own, keeps state outside of its "
                    "module, or its kernels are not deterministic",
                )
        for tap, values, _ in first:
            emit(tap, values)


def _digest(values: Array) -> bytes:
    told = hashlib.blake2b(f"{values.dtype.name}{values.shape}".encode(), digest_size=16)
    told.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return told.digest()
