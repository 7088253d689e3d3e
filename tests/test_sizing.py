from __future__ import annotations

from pathlib import Path

import pytest

import layertap
from layertap.errors import LayertapError, NoSuchTap, PlanError
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.testing.tflite_cases import known_model
from layertap.tflite.edit import with_outputs
from layertap.tflite.model import parse
from layertap.tflite.relayout import with_layout

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


def test_a_layout_that_the_kernels_do_not_bear_is_refused() -> None:
    tensors = [TensorSpec("x", (1, 16)), TensorSpec("y", (1, 16)), TensorSpec("z", (1, 16))]
    operators = [OperatorSpec("ADD", [0, 0], [1]), OperatorSpec("NEG", [1], [2])]
    plain = write_tflite(SubgraphSpec(tensors, [0], [2], operators))
    shared = with_layout(plain, [0, 0, 64])
    assert layertap.memory(shared).overlaps.kind == "in-place"
    for ask in (
        lambda kernels: layertap.memory(shared, kernels=kernels),
        lambda kernels: layertap.prices(shared, kernels=kernels),
        lambda kernels: layertap.passes(shared, "*", "96K", kernels=kernels),
    ):
        ask("reference")
        ask("hexagon")  # it has no ADD of its own
        with pytest.raises(PlanError, match="not known to be with those of cmsis_nn"):
            ask("cmsis_nn")
    # The hint was tried.
    for options in ({"sharing": "none"}, {"kernels": "cmsis_nn"}):
        mended = layertap.optimize(shared, verify=False, **options)
        layertap.memory(mended.data, kernels="cmsis_nn")
    layertap.memory(plain, kernels="cmsis_nn")
