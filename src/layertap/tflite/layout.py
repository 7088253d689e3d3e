"""A ready memory layout that a .tflite file brings along for the micro interpreter."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from layertap.tflite.edit import OFFLINE_PLAN
from layertap.tflite.flatbuffer import damaged
from layertap.tflite.model import TfliteModel

_VERSION = 1
_ONLINE = -1
"""The entry of a tensor that the interpreter's planner places."""

_HEADER = 3
"""Numbers before the offsets: version, number of subgraphs, number of tensors."""


def layout_of(model: TfliteModel) -> tuple[tuple[int | None, ...], ...]:
    """Per subgraph and tensor the offset in the arena, bytes, None where the planner chooses;
    empty for a model without a layout.

    Raises CorruptModel for a layout that does not fit the model; the interpreter would read past
    its end, or refuse it. Source: tflite-micro, tensorflow/lite/micro/micro_allocation_info.cc.
    """
    held = model.metadata.get(OFFLINE_PLAN)
    if held is None:
        return ()
    counts = [len(subgraph.tensors) for subgraph in model.subgraphs]
    numbers = _numbers(model.data[held.start : held.stop], sum(counts))
    offsets = iter(None if number == _ONLINE else number for number in numbers)
    return tuple(tuple(next(offsets) for _ in range(count)) for count in counts)


def layout_bytes(subgraphs: int, offsets: Sequence[int | None]) -> bytes:
    """The layout of so many subgraphs as it stands in a file: one offset per tensor.
    Source of the format: tflite-micro, docs/memory_management.md."""
    entries = (_ONLINE if offset is None else offset for offset in offsets)
    return struct.pack(f"<{_HEADER + len(offsets)}i", _VERSION, subgraphs, len(offsets), *entries)


def _numbers(data: bytes, count: int) -> list[int]:
    needed = 4 * (_HEADER + count)
    if len(data) < needed:
        raise damaged(f"its memory layout has {len(data):,} bytes, {count} tensors need {needed:,}")
    numbers = struct.unpack(f"<{_HEADER + count}i", data[:needed])
    if numbers[2] != count:
        raise damaged(f"its memory layout is for {numbers[2]} tensors, the model has {count}")
    for i, offset in enumerate(numbers[_HEADER:]):
        if offset < _ONLINE:
            raise damaged(f"its memory layout has the offset {offset} at entry {i}")
    return list(numbers[_HEADER:])


__all__ = ["layout_bytes", "layout_of"]
