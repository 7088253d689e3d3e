from __future__ import annotations

import struct

import pytest

from layertap.errors import CorruptModel
from layertap.testing.tflite import SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.edit import OFFLINE_PLAN
from layertap.tflite.layout import layout_of
from layertap.tflite.model import TfliteModel, parse


def model(*numbers: int) -> TfliteModel:
    """Two subgraphs, of two tensors and of one, and a layout of these numbers."""
    graphs = [
        SubgraphSpec([TensorSpec(f"t{i}", (4,)) for i in range(count)], [0], [0], [])
        for count in (2, 1)
    ]
    layout = {OFFLINE_PLAN: struct.pack(f"<{len(numbers)}i", *numbers)} if numbers else {}
    return parse(write_tflite(*graphs, metadata=layout))


def test_offsets_by_subgraph() -> None:
    assert layout_of(model(1, 2, 3, 0, 16, -1)) == ((0, 16), (None,))


def test_no_layout() -> None:
    assert layout_of(model()) == ()


@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        ((1, 2, 3, 0, 16), "20 bytes, 3 tensors need 24"),
        ((1, 2), "8 bytes"),
        ((1, 2, 4, 0, 16, -1, 32), "for 4 tensors, the model has 3"),
        ((1, 2, -3, 0, 16, -1), "for -3 tensors"),
        ((1, 2, 3, 0, -2, -1), "the offset -2 at entry 1"),
    ],
)
def test_a_layout_of_another_model(numbers: tuple[int, ...], what: str) -> None:
    with pytest.raises(CorruptModel, match=what):
        layout_of(model(*numbers))
