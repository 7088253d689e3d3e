"""The parser against the generated schema classes, and against damaged files."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import CorruptModel
from layertap.testing.tflite import (
    OperatorSpec,
    SignatureSpec,
    SubgraphSpec,
    TensorSpec,
    write_tflite,
)
from layertap.tflite import schema
from layertap.tflite.flatbuffer import Flatbuffer
from layertap.tflite.graph import tap_graph
from layertap.tflite.model import COMPRESSION, parse
from layertap.tflite.values import constant


def small() -> bytes:
    weights = np.arange(12, dtype=np.int8).reshape(4, 3)
    tensors = [
        TensorSpec("x", (2, 3), "int8", scales=[0.5], zero_points=[3], signature=(-1, 3)),
        TensorSpec("w", (4, 3), "int8", data=weights, scales=[1, 2, 3, 4], zero_points=[0] * 4),
        TensorSpec("y", (2, 4), "int8", scales=[0.25], zero_points=[-1]),
        TensorSpec("state", (1, 4), "int8", variable=True),
    ]
    main = SubgraphSpec(
        tensors,
        [0],
        [2],
        [OperatorSpec("FULLY_CONNECTED", [0, 1, -1], [2]), OperatorSpec("my_op", [3], [3])],
    )
    signature = SignatureSpec("serve", {"in": 0}, {"out": 2})
    return write_tflite(main, signatures=[signature], metadata={"note": b"hello"})


def test_every_field_is_read() -> None:
    model = parse(small())
    (main,) = model.subgraphs
    x, w, _, state = main.tensors
    assert (x.name, x.dtype, x.shape, x.signature) == ("x", "int8", (2, 3), (-1, 3))
    assert x.quantization is not None
    assert (x.quantization.scales, x.quantization.zero_points) == ((0.5,), (3,))
    assert w.quantization is not None
    assert (w.quantization.scales, w.quantization.axis) == ((1.0, 2.0, 3.0, 4.0), 0)
    assert state.variable
    assert (main.inputs, main.outputs) == ((0,), (2,))
    assert [op.name for op in main.operators] == ["FULLY_CONNECTED", "my_op"]
    assert main.operators[0].inputs == (0, 1, -1)
    assert model.signatures[0].outputs == (("out", 2),)
    note = model.metadata["note"]
    assert model.data[note.start : note.stop] == b"hello"


@pytest.mark.slow
def test_shared_models_as_the_generated_classes_read_them(shared: Path) -> None:
    from ai_edge_litert import schema_py_generated as generated

    for path in sorted(shared.glob("models/*/*.tflite")):
        data = path.read_bytes()
        expected = generated.ModelT.InitFromObj(generated.Model.GetRootAsModel(data, 0))
        model = parse(data)
        assert len(model.subgraphs) == len(expected.subgraphs)
        for ours, theirs in zip(model.subgraphs, expected.subgraphs, strict=True):
            assert ours.inputs == tuple(theirs.inputs)
            assert ours.outputs == tuple(theirs.outputs)
            for tensor, other in zip(ours.tensors, theirs.tensors, strict=True):
                assert tensor.name == (other.name or b"").decode()
                assert tensor.shape == tuple([] if other.shape is None else other.shape)
                stored = expected.buffers[other.buffer].data
                held = data[tensor.data.start : tensor.data.stop]
                assert held == (b"" if stored is None else stored.tobytes())
                scales = other.quantization.scale if other.quantization else None
                assert (tensor.quantization is None) == (scales is None or not len(scales))
            for op, other_op in zip(ours.operators, theirs.operators, strict=True):
                assert op.inputs == tuple(other_op.inputs)
                assert op.outputs == tuple(other_op.outputs)


def test_bias_with_the_axis_of_its_weights() -> None:
    """Old converters did that; person_detect.tflite is one of their files."""
    bias = TensorSpec("b", (3,), "int32", scales=[1, 2, 3], zero_points=[0, 0, 0], axis=3)
    tensor = parse(write_tflite(SubgraphSpec([bias], [], [], []))).subgraphs[0].tensors[0]
    assert tensor.quantization is not None
    assert tensor.quantization.axis == 0


def test_scales_that_fit_no_axis_are_no_quantization() -> None:
    bad = TensorSpec("b", (5,), "int32", scales=[1, 2, 3], zero_points=[0, 0, 0])
    tensor = parse(write_tflite(SubgraphSpec([bad], [], [], []))).subgraphs[0].tensors[0]
    assert tensor.quantization is None


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x00" * 100, b"\x08\x00\x00\x00ABCD" * 9])
def test_not_a_tflite_file(data: bytes) -> None:
    with pytest.raises(CorruptModel, match="not a .tflite file"):
        parse(data)


def test_references_out_of_range() -> None:
    one = [TensorSpec("x", (1,))]
    for main in (
        SubgraphSpec(one, [1], [], []),
        SubgraphSpec(one, [], [-1], []),
        SubgraphSpec(one, [0], [0], [OperatorSpec("RELU", [0], [7])]),
        SubgraphSpec(one, [0], [0], [OperatorSpec("IF", [0], [0], {0: 1, 1: 2})]),
    ):
        with pytest.raises(CorruptModel, match="damaged"):
            parse(write_tflite(main))
    with pytest.raises(CorruptModel, match="no subgraph"):
        parse(write_tflite())
    with pytest.raises(CorruptModel, match="no tensors"):
        parse(write_tflite(SubgraphSpec([], [], [], [])))


def test_constants_that_lack_bytes() -> None:
    for dtype, shape, raw in (("float32", (9,), b"abc"), ("int4", (3, 3), b"abcd")):
        data = write_tflite(SubgraphSpec([TensorSpec("w", shape, dtype, raw=raw)], [], [], []))
        with pytest.raises(
            CorruptModel, match=rf"'w' \(tensor 0\).*has {len(raw)} bytes and needs"
        ):
            parse(data)


def test_constants_that_lack_bytes_since_they_are_packed() -> None:
    short = TensorSpec("w", (9,), raw=b"abc")
    parse(write_tflite(SubgraphSpec([TensorSpec("w", (9,), raw=b"abc", sparse=True)], [], [], [])))
    parse(write_tflite(SubgraphSpec([short], [], [], []), metadata={COMPRESSION: b"\1"}))


def test_constants_with_too_many_bytes_are_refused_when_read() -> None:
    model = parse(write_tflite(SubgraphSpec([TensorSpec("w", (1,), raw=b"abcdef")], [], [], [])))
    with pytest.raises(CorruptModel, match="6 bytes"):
        constant(model, model.subgraphs[0].tensors[0])


@pytest.mark.parametrize(
    "shape", [(-2, 3), (2**31 - 1, 2**31 - 1), (-(2**31),), (1,) * 65, (0x7FFFFFFF,) * 64]
)
def test_impossible_shapes(shape: tuple[int, ...]) -> None:
    tensors = [TensorSpec("x", (1,)), TensorSpec("huge", shape)]
    with pytest.raises(CorruptModel, match=r"tensor 1 \('huge'\) has"):
        parse(write_tflite(SubgraphSpec(tensors, [0], [0], [])))


def test_subgraphs_in_a_circle() -> None:
    def runs(called: int) -> SubgraphSpec:
        loop = OperatorSpec("WHILE", [0], [0], {0: called, 1: called})
        return SubgraphSpec([TensorSpec("x", (1,))], [0], [0], [loop])

    with pytest.raises(CorruptModel, match="subgraph 1 runs itself"):
        parse(write_tflite(runs(1), runs(2), runs(1)))
    leaf = SubgraphSpec([TensorSpec("x", (1,))], [0], [0], [])
    long = [runs(i + 1) for i in range(2000)]
    assert len(parse(write_tflite(*long, leaf)).subgraphs) == 2001


def read_everything(data: bytes) -> None:
    """All that listing and reading do; only CorruptModel may come out."""
    model = parse(data)
    tap_graph(model)
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            if tensor.data and tensor.dtype in ("int8", "float32", "int4"):
                constant(model, tensor)


def check(data: bytes) -> None:
    started = time.monotonic()
    try:
        read_everything(data)
    except CorruptModel as error:
        assert error.hint
    assert time.monotonic() - started < 30


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=12))
@settings(max_examples=400)
def test_flipped_bytes(flips: list[tuple[int, int]]) -> None:
    data = bytearray(small())
    for at, value in flips:
        data[at % len(data)] = value
    check(bytes(data))


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 16]))
@settings(max_examples=400)
def test_wild_words(at: int, word: int) -> None:
    data = bytearray(small())
    at = 8 + at % (len(data) - 12) // 4 * 4
    data[at : at + 4] = word.to_bytes(4, "little")
    check(bytes(data))


def test_every_truncation() -> None:
    data = small()
    for size in range(len(data)):
        check(data[:size])


@pytest.mark.slow
def test_damaged_real_models(shared: Path) -> None:
    rng = random.Random(7)
    for path in sorted(shared.glob("models/tflm/*.tflite")):
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole[: rng.randrange(8, len(whole)) if rng.random() < 0.3 else None])
            for _ in range(rng.randrange(1, 40)):
                # Most of a file is weights; its tables lie at both ends.
                at = rng.randrange(len(data)) if rng.random() < 0.3 else -rng.randrange(1, 4000)
                data[max(at, -len(data))] = rng.randrange(256)
            check(bytes(data))


def test_one_string_read_over_and_over_is_refused() -> None:
    """A small file must not cost gigabytes."""
    names = ["n" * 200_000, *(f"t{i}" for i in range(800))]
    tensors = [TensorSpec(name, (1,)) for name in names]
    data = bytearray(write_tflite(SubgraphSpec(tensors, [], [], [])))
    (main,) = Flatbuffer(bytes(data)).root().tables(schema.Model.SUBGRAPHS)
    slots = [t.slot(schema.Tensor.NAME) for t in main.tables(schema.SubGraph.TENSORS)]
    long = slots[0] + int.from_bytes(data[slots[0] : slots[0] + 4], "little")
    pointing = [slot for slot in slots if slot < long]
    assert len(pointing) > 700
    for slot in pointing:
        data[slot : slot + 4] = (long - slot).to_bytes(4, "little")
    with pytest.raises(CorruptModel, match="again and again"):
        parse(bytes(data))


def test_one_table_listed_over_and_over_is_refused() -> None:
    """Offsets lead forward, so a list of them is appended, and behind it the table, without
    fields."""
    count, data = 100_000, bytearray(small())
    (main,) = Flatbuffer(bytes(data)).root().tables(schema.Model.SUBGRAPHS)
    data += bytes(-len(data) % 4)
    slot, at = main.slot(schema.SubGraph.TENSORS), len(data)
    data[slot : slot + 4] = (at - slot).to_bytes(4, "little")
    table = at + 4 + 4 * count + 4
    data += count.to_bytes(4, "little")
    data += b"".join((table - at - 4 - 4 * i).to_bytes(4, "little") for i in range(count))
    data += bytes([4, 0, 32, 0]) + bytes([4, 0, 0, 0]) + bytes(28)
    with pytest.raises(CorruptModel, match="same tables again and again"):
        parse(bytes(data))


def test_listing_imports_no_framework(tmp_path: Path) -> None:
    path = tmp_path / "small.tflite"
    path.write_bytes(small())
    code = (
        "import sys, layertap\n"
        f"model = layertap.open({str(path)!r}, runtime='tflm'); assert 'x' in model.graph\n"
        "for name in ('tflite_micro', 'ai_edge_litert', 'tensorflow', 'torch', 'keras', 'jax'):\n"
        "    assert name not in sys.modules, name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
