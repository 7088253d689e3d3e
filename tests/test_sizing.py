from __future__ import annotations

from pathlib import Path

import pytest

import layertap
from layertap.errors import LayertapError, NoSuchTap
from layertap.testing.tflite_cases import known_model
from layertap.tflite.edit import with_outputs
from layertap.tflite.model import parse

DATA = known_model().data


def test_memory_takes_a_path_or_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(DATA)
    found = layertap.memory(path)
    assert isinstance(found, layertap.MemoryMap)
    assert found == layertap.memory(str(path)) == layertap.memory(DATA)
    with pytest.raises(LayertapError, match="cannot be read"):
        layertap.memory(tmp_path / "absent.tflite")


def test_memory_of_a_tapped_model() -> None:
    names = [t.name for t in parse(DATA).subgraphs[0].tensors]
    taps = [names.index("dense"), names.index("sum")]
    edited = layertap.memory(with_outputs(DATA, taps), "cortex-m").arena
    assert layertap.memory(DATA, "cortex-m", taps=["dense", "sum"]).arena == edited
    assert layertap.memory(DATA, taps="x").arena == layertap.memory(DATA).arena
    with pytest.raises(NoSuchTap):
        layertap.memory(DATA, taps="nowhere")


def test_the_allocator_that_keeps_statistics_takes_more() -> None:
    plain = layertap.memory(DATA, "cortex-m").arena
    recording = layertap.memory(DATA, "cortex-m", recording=True).arena
    assert recording.head == plain.head
    assert 0 <= recording.tail - plain.tail - (52 - 36) - (124 - 36) < 16
