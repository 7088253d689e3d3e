from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from layertap.arena.buffers import ALIGNMENT, Buffer, collisions
from layertap.arena.mapping import memory_map, tapped
from layertap.arena.memory_map import MemoryMap
from layertap.arena.target import load_target
from layertap.errors import CorruptModel, LayertapError, Untappable
from layertap.sizing import memory
from layertap.testing.micro_cases import Graph, layer_cases
from layertap.testing.micro_graphs import graph_cases
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.edit import OFFLINE_PLAN, with_outputs
from layertap.tflite.model import parse

CHIP = load_target("cortex-m")
HOST = load_target("host", "0.dev20261023182759")


def chain(
    count: int = 4, outputs: Sequence[int] = (), layout: Sequence[int] | None = None
) -> bytes:
    tensors = [TensorSpec(f"t{i}", (1, 4 + 4 * i)) for i in range(count + 1)]
    steps = [OperatorSpec("ABS", [i], [i + 1]) for i in range(count)]
    graph = SubgraphSpec(tensors, [0], outputs or [count], steps)
    plan = {} if layout is None else {OFFLINE_PLAN: numbers(1, 1, len(layout), *layout)}
    return write_tflite(graph, metadata=plan)


def numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def one(shape: Sequence[int], result: Sequence[int], op: str = "ABS") -> bytes:
    tensors = [TensorSpec("x", shape), TensorSpec("y", result)]
    return write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec(op, [0], [1])]))


def offsets(found: MemoryMap) -> list[int | None]:
    return [p.offset for p in found.placements]


def test_a_map_says_where_everything_is() -> None:
    found = memory_map(parse(chain()), CHIP)
    assert [p.home for p in found] == ["arena"] * 5
    assert [p.op for p in found] == ["INPUT", "ABS", "ABS", "ABS", "ABS"]
    assert [p.alive for p in found] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 4)]
    assert found["t2"].bytes == 48
    assert found.arena.lower_bound == found.arena.head == 64 + 80
    assert found.arena.peak is not None
    assert found.arena.peak.alive == ("t3", "t4")
    assert found.arena.peak.step.operator == 3
    assert found.arena.used == found.arena.head + found.arena.tail
    assert sum(s.bytes or 0 for s in found.arena.sections) == found.arena.tail
    assert found.arena.exact


def test_weights_are_in_flash_and_counted_once() -> None:
    graph = Graph()
    x, y, z = graph.tensor((1, 8)), graph.tensor((1, 8)), graph.tensor((1, 8))
    held = graph.weights((8, 8))
    graph.op("FULLY_CONNECTED", [x, held, -1], [y])
    graph.op("FULLY_CONNECTED", [y, held, -1], [z])
    data = graph.model([x], [z])
    found = memory_map(parse(data), CHIP)
    place = found.placements[held]
    assert place.home == "flash"
    assert place.offset is not None
    assert data[place.offset : place.offset + 4] == struct.pack("<f", 1)
    assert [(layer.bytes, layer.shared) for layer in found.flash.layers] == [(256, 0), (0, 256)]
    assert found.flash.weights == 256
    assert found.flash.total == len(data)


def test_variables_are_kept() -> None:
    found = memory_map(parse(layer_cases()["SVDF float32"]()), CHIP)
    (variable,) = [p for p in found if p.variable]
    assert (variable.home, variable.bytes, variable.op) == ("persistent", 192, "VARIABLE")
    scratch = found["t5/scratch:0"]
    assert (scratch.bytes, scratch.index, scratch.op) == (64, None, "SVDF")
    assert scratch.alive == (1, 1)


@pytest.mark.parametrize("case", [*layer_cases(), *graph_cases()])
def test_no_live_buffers_share_bytes(case: str) -> None:
    data = (layer_cases() | graph_cases())[case]()
    for target in (HOST, CHIP, load_target("ilp32")):
        found = memory_map(parse(data), target)
        planned = found.planned()
        buffers = [Buffer(p.size, *(p.alive or (0, 0))) for p in planned]
        assert collisions(buffers, [p.offset or 0 for p in planned]) == []
        assert found.arena.minimum % ALIGNMENT == 0
        assert found.arena.minimum >= found.arena.used
        assert found.arena.unknown == ()


def test_an_open_dimension_is_worked_out_where_the_kernel_does() -> None:
    found = memory_map(parse(graph_cases()["RESHAPE open float32"]()), CHIP)
    assert [p.shape for p in found if p.op == "RESHAPE"] == [(3, 4)]


def test_a_layout_in_the_model_is_kept() -> None:
    found = memory_map(parse(chain(layout=[0, 256, -1, 512, -1])), CHIP)
    assert offsets(found) == [0, 256, 0, 512, 0]


@pytest.mark.parametrize("layout", [None, [0, 256, -1, 512, -1]])
def test_tapped_is_what_the_edited_file_would_be(layout: Sequence[int] | None) -> None:
    data = chain(layout=layout)
    for taps in ([1], [3, 1], [4], [1, 2, 3, 4], []):
        edited = memory_map(parse(with_outputs(data, taps)), CHIP)
        short = memory_map(tapped(parse(data), taps), CHIP)
        assert short.arena == edited.arena
        assert short.placements == edited.placements


@pytest.mark.parametrize("case", graph_cases())
def test_tapped_is_right_for_every_kind_of_graph(case: str) -> None:
    data = graph_cases()[case]()
    model = parse(data)
    taps = [i for op in model.subgraphs[0].operators for i in op.outputs]
    taps = [i for i in taps if model.subgraphs[0].tensors[i].dtype != "resource"]
    edited = memory_map(parse(with_outputs(data, taps)), HOST)
    short = memory_map(tapped(model, taps), HOST)
    assert short.arena == edited.arena
    strip = [replace(p, offset=None) if p.home == "flash" else p for p in edited]
    assert [replace(p, offset=None) if p.home == "flash" else p for p in short] == strip


def test_what_cannot_be_an_output_is_not_tapped() -> None:
    graph = Graph()
    x, y = graph.tensor((1, 8)), graph.tensor((1, 8))
    held = graph.weights((8, 8))
    graph.op("FULLY_CONNECTED", [x, held, -1], [y])
    with pytest.raises(Untappable, match="no operator computes it"):
        tapped(parse(graph.model([x], [y])), [held])


def test_what_no_table_covers_is_named() -> None:
    data = one((1, 4), (1, 4), "MyOwn")
    assert memory(data).arena.unknown == ("what the kernel of the custom operator MyOwn asks for",)
    assert memory(one((1, 4), (1, 4), "TILE")).arena.unknown == (
        "TILE, for which tflite-micro has no kernel",
    )
    vendor = memory(layer_cases()["CONV_2D int8"](), "cortex-m", kernels="cmsis_nn").arena
    assert vendor.unknown == ("what the cmsis_nn kernel of CONV_2D asks for",)
    known = memory(layer_cases()["CONV_2D int8"](), "cortex-m").arena
    assert known.exact
    assert vendor.head == known.head
    assert vendor.tail < known.tail
    assert memory(chain(), "cortex-m", version="0.dev20270101").arena.unknown


def test_scratch_that_nobody_plans_is_named() -> None:
    main = SubgraphSpec([TensorSpec("x", (4,))], [0], [0], [])
    idle = Graph()
    inputs = [idle.tensor((1, 8)) for _ in range(2)]
    result = idle.tensor((1, 8))
    idle.op("ADD_N", inputs, [result])
    found = memory_map(parse(write_tflite(main, idle.spec(inputs, [result]))), CHIP)
    assert "the scratch buffers of subgraph 1, which nothing runs" in found.arena.unknown[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (one((1, -1), (1, -1)), r"computes 'y' of shape \[1, -1\], a size that is not fixed"),
        (one((1, -1), (1, 4)), r"tensor 0 \('x'\) of shape \[1, -1\] would take -4 bytes"),
        (one((1, 4), (0, 4)), "a size that is not fixed"),
        (one((1 << 15, 1 << 15), (1, 4)), "would take 4,294,967,296 bytes"),
        (one((1 << 22, 100), (1 << 22, 100)), "would need an arena of"),
        (one((1, 6), (-1, -1), "RESHAPE"), r"\(RESHAPE\) makes \[-1, -1\] of 6 elements"),
        (one((1, 6), (-1, 4), "RESHAPE"), r"\(RESHAPE\) makes \[-1, 4\] of 6 elements"),
        (one((1, 6), (1, 6), "CONV_2D"), r"\(CONV_2D\) has no input 1"),
        (chain(layout=[0, 1, 2, 3]), "its memory layout has 28 bytes, 5 tensors need 32"),
    ],
)
def test_models_that_cannot_be_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(CorruptModel, match=message):
        memory(data, "cortex-m")


@pytest.mark.parametrize("options", [b"", b"\1", b"\xff" * 40, b"\x08\x26\x01"])
def test_broken_options_are_refused(options: bytes) -> None:
    tensors = [TensorSpec("x", (1, 32), "int16"), TensorSpec("y", (1, 34), "int16")]
    step = OperatorSpec("SignalRfft", [0], [1], custom=options)
    with pytest.raises(CorruptModel, match="the options of a custom operator"):
        memory(write_tflite(SubgraphSpec(tensors, [0], [1], [step])))


@pytest.mark.slow
def test_damaged_files_end_in_an_error_or_a_map() -> None:
    rng = random.Random(0)
    cases = [make() for make in (layer_cases() | graph_cases()).values()]
    maps = 0
    for _ in range(6000):
        damaged = bytearray(rng.choice(cases))
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.choice([0, 127, 128, 255])
        try:
            found = memory(bytes(damaged))
        except LayertapError:
            continue
        maps += 1
        assert 0 < found.arena.used <= found.arena.minimum < 1 << 31
    assert 500 < maps < 5500
