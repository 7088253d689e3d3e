"""A ready memory layout that a .tflite file brings along for the micro interpreter."""

from __future__ import annotations

import struct

from layertap.tflite.edit import OFFLINE_PLAN
from layertap.tflite.flatbuffer import damaged
from layertap.tflite.model import TfliteModel

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
    offsets = iter(None if number == -1 else number for number in numbers)
    return tuple(tuple(next(offsets) for _ in range(count)) for count in counts)


def _numbers(data: bytes, count: int) -> list[int]:
    needed = 4 * (_HEADER + count)
    if len(data) < needed:
        raise damaged(f"its memory layout has {len(data):,} bytes, {count} tensors need {needed:,}")
    numbers = struct.unpack(f"<{_HEADER + count}i", data[:needed])
    if numbers[2] != count:
        raise damaged(f"its memory layout is for {numbers[2]} tensors, the model has {count}")
    for i, offset in enumerate(numbers[_HEADER:]):
        if offset < -1:
            raise damaged(f"its memory layout has the offset {offset} at entry {i}")
    return list(numbers[_HEADER:])


__all__ = ["layout_of"]
