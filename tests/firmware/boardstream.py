"""What a board would send of a .tflite that it runs on its own; for tests and documents."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import layertap
from layertap.core.graph import COMPUTED
from layertap.firmware.wire.elements import stored_bytes
from layertap.firmware.wire.messages import Done, Hello, Message, Tensor, mask_bytes, pack
from layertap.runtimes.device.session import DeviceModel

PIECE = 4096


def stream(model: bytes, x: Any) -> bytes:
    """One inference for each sample of ``x``, every tensor that the model computes."""
    with layertap.open(model, "tflm") as opened:
        run = opened.capture(x)
    numbers = itertools.count()
    return b"".join(pack(message, next(numbers)) for message in _messages(model, run))


def _messages(model: bytes, run: layertap.Run) -> Iterator[Message]:
    device = DeviceModel(model)
    taps = [tap for tap in run.taps if tap.kind in COMPUTED]
    yield Hello(
        reason=0,
        able=0,
        receive=0,
        rules=0,
        model=zlib.crc32(model),
        size=len(model),
        tensors=len(device.bits),
        arena=0,
        used=0,
        every=1,
        name="digits",
        mask=mask_bytes([device.bits[tap.subgraph, tap.index] for tap in taps], len(device.bits)),
    )
    for sample in range(run.samples):
        frames = 0
        for tap in taps:
            value = np.asarray(run[tap.name].raw[sample])
            value = value[None] if tap.per == "sample" else value
            data = value.tobytes()
            assert len(data) == stored_bytes(tap.dtype, value.size)
            place = (sample, tap.subgraph, tap.index, 0, tap.dtype, value.shape)
            for at in range(0, max(1, len(data)), PIECE):
                yield Tensor(*place, at, data[at : at + PIECE])
                frames += 1
        yield Done(sample, 0, len(taps), frames)


__all__ = ["stream"]
