"""The prediction against what the tflite-micro wheel says: no byte of difference.

Source of the list of operators: tflite-micro, python/tflite_micro/python_ops_resolver.cc.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from layertap.arena.kernels import PREPARE
from layertap.arena.mapping import memory_map, tapped
from layertap.arena.memory_map import MemoryMap
from layertap.arena.minimum import Needs
from layertap.arena.target import load_target
from layertap.errors import CorruptModel
from layertap.testing.micro_cases import layer_cases
from layertap.testing.micro_graphs import graph_cases
from layertap.tflite.edit import with_outputs
from layertap.tflite.model import TfliteModel, parse
from layertap.tflite.relayout import with_layout

pytest.importorskip("tflite_micro")
pytestmark = pytest.mark.slow

CASES = layer_cases() | graph_cases()

RESOLVER = """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND
    BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CIRCULAR_BUFFER CONCATENATION CONV_2D COS CUMSUM
    TFLM_DECODE SignalDelay DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE TFLite_Detection_PostProcess
    DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP SignalEnergy EQUAL EXP EXPAND_DIMS
    SignalFftAutoScale FILL SignalFilterBank SignalFilterBankLog SignalFilterBankSpectralSubtraction
    SignalFilterBankSquareRoot FLOOR FLOOR_DIV FLOOR_MOD SignalFramer FULLY_CONNECTED GATHER
    GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF SignalIrfft L2_NORMALIZATION L2_POOL_2D LEAKY_RELU
    LESS LESS_EQUAL LOG LOG_SOFTMAX LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAX_POOL_2D MAXIMUM
    MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL SignalOverlapAdd SignalPCAN PACK PAD PADV2 PRELU
    QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR REVERSE_V2 SignalRfft ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
    SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE
    SignalStacker STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE SignalWindow ZEROS_LIKE
"""
EXCEPTIONS = {"ethos-u": "the resolver takes it up only in builds for that accelerator"}

OVERWRITTEN = {
    "BATCH_MATMUL int8",
    "BATCH_MATMUL int16",
    "CUMSUM int8",
    "DEPTH_TO_SPACE int8",
    "EMBEDDING_LOOKUP int8",
    "FULLY_CONNECTED per channel",
    "GATHER int8",
    "GATHER_ND int8",
    "LOG_SOFTMAX int8",
    "SOFTMAX int16",
    "SPACE_TO_DEPTH int8",
}
"""Models that the interpreter also takes in a slightly smaller arena, where a kernel overwrites
what it works with: not to be called working."""

REFUSED = {"kws_float.tflite": "has int8 weights for float values, which the kernels refuse"}

GENEROUS = 1 << 20


class Wheel:
    """The process that asks the wheel."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process, self.path = process, folder / "model.tflite"

    def ask(self, model: bytes, arena: int, **more: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.path.write_bytes(model)
        request = json.dumps({"path": str(self.path), "arena": arena, **more})
        print(request, file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def loads(self, model: bytes, arena: int) -> bool:
        return "total" in self.ask(model, arena)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wheel]:
    worker = str(Path(__file__).with_name("wheel_worker.py"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, worker], **pipes) as process:
        yield Wheel(process, tmp_path_factory.mktemp("wheel"))


def everything(model: TfliteModel) -> list[int]:
    """All that the main subgraph computes and that can be an output."""
    graph = model.subgraphs[0]
    made = dict.fromkeys(i for operator in graph.operators for i in operator.outputs if i >= 0)
    return [i for i in made if graph.tensors[i].dtype != "resource"]


def maps(data: bytes) -> list[tuple[bytes, MemoryMap]]:
    """The model as it is, and with everything tapped."""
    model, target = parse(data), load_target("host")
    everywhere = tapped(model, everything(model))
    return [
        (data, memory_map(model, target)),
        (with_outputs(data, everything(model)), memory_map(everywhere, target)),
    ]


def check_sizes(wheel: Wheel, data: bytes) -> None:
    for changed, found in maps(data):
        arena = found.arena
        truth = wheel.ask(changed, max(2 * arena.minimum, GENEROUS))
        assert "total" in truth, truth
        assert (truth["total"], truth["head"], truth["tail"]) == (
            arena.used,
            arena.head,
            arena.tail,
        ), truth["log"]
        assert arena.unknown == ()


def check_minimum(wheel: Wheel, data: bytes, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the interpreter itself refuses every smaller arena."""
    safe = [found.arena.minimum for _, found in maps(data)]
    monkeypatch.setattr(Needs, "minimum", Needs.noticed)
    for (changed, found), minimum in zip(maps(data), safe, strict=True):
        assert wheel.loads(changed, minimum)
        assert not wheel.loads(changed, found.arena.minimum - 16)
    return [found.arena.minimum for _, found in maps(data)] == safe


def test_the_wheel_has_a_table_of_its_own() -> None:
    target = load_target("host")
    assert target.version == version("tflite-micro")
    assert target.guess == ""


def test_every_operator_has_a_model() -> None:
    wanted = set(RESOLVER.split())
    assert wanted == set(PREPARE)
    assert wanted.isdisjoint(EXCEPTIONS)
    assert wanted == {name for case in CASES for name in case.split() if name in wanted}


@pytest.mark.parametrize("case", CASES)
def test_the_sizes_of_each_operator(wheel: Wheel, case: str) -> None:
    check_sizes(wheel, CASES[case]())


@pytest.mark.parametrize("case", CASES)
def test_the_smallest_arena_of_each_operator(
    wheel: Wheel, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwritten = any(case.startswith(name) for name in OVERWRITTEN)
    assert check_minimum(wheel, CASES[case](), monkeypatch) or overwritten


LAID_OUT = """
    ADD_float32 SVDF_float32 WHILE CONV_2D_int4 UNIDIRECTIONAL_SEQUENCE_LSTM_int8 MEAN_int8
"""


@pytest.mark.parametrize("case", LAID_OUT.split())
@pytest.mark.parametrize("every", [1, 2])
def test_models_with_a_layout(
    wheel: Wheel, case: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tensor, or each second one, at an offset of its own, variables too."""
    data = CASES[case.replace("_float32", " float32").replace("_int", " int")]()
    model = parse(data)
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    offsets = [
        None if tensor.data or number % every else 512 * number
        for number, tensor in enumerate(tensors)
    ]
    laid_out = with_layout(data, offsets)
    check_sizes(wheel, laid_out)
    assert check_minimum(wheel, laid_out, monkeypatch)


def shared_models(shared: Path) -> list[Path]:
    found = sorted((shared / "models").glob("*/*.tflite"))
    assert len(found) == 12
    return found


def test_the_sizes_of_real_models(wheel: Wheel, shared: Path) -> None:
    for path in shared_models(shared):
        if path.name in REFUSED:
            (_, found), _ = maps(path.read_bytes())
            assert "which tflite-micro refuses" in found.arena.unknown[0]
            assert not wheel.loads(path.read_bytes(), 10 * GENEROUS)
        else:
            check_sizes(wheel, path.read_bytes())


def test_the_smallest_arena_of_real_models(wheel: Wheel, shared: Path) -> None:
    for path in shared_models(shared):
        if path.name not in REFUSED:
            with pytest.MonkeyPatch.context() as patch:
                assert check_minimum(wheel, path.read_bytes(), patch)


LARGE = 1 << 26
"""So large an arena has memory of its own, which can be searched."""


def test_the_place_of_each_tensor(wheel: Wheel, shared: Path) -> None:
    """Where the interpreter left the values of all tensors that outlive the run."""
    told = 0
    for path in shared_models(shared):
        # One number as an input is found anywhere.
        if path.name in REFUSED or path.name.startswith("hello_world"):
            continue
        model = parse(path.read_bytes())
        for changed, found in maps(path.read_bytes()):
            outputs = parse(changed).subgraphs[0].outputs
            places = wheel.ask(changed, LARGE, outputs=len(outputs))["outputs"]
            start = found.placements[model.subgraphs[0].inputs[0]].offset
            for tensor, hits in zip(outputs, places, strict=True):
                offset = found.placements[tensor].offset
                assert start is not None
                assert offset is not None
                assert offset - start in hits, (path.name, tensor)
                told += hits == [offset - start]
    assert told > 50


def mutants(whole: bytes, count: int) -> Iterator[bytes]:
    """``whole`` with a byte flipped, or a number replaced by another small one."""
    rng = random.Random(len(whole))
    for _ in range(count):
        data = bytearray(whole)
        at = rng.randrange(8, len(data))
        data[at] = rng.choice([0, 1, 2, 3, 5, 9, rng.randrange(256)])
        yield bytes(data)


def test_damaged_models_have_no_figures_that_only_look_true(wheel: Wheel) -> None:
    """Whatever both take has the same sizes, though nobody meant such a model."""
    target, same = load_target("host"), 0
    for make in CASES.values():
        for data in mutants(make(), 8):
            try:
                arena = memory_map(parse(data), target).arena
            except CorruptModel:
                continue
            if arena.exact and arena.minimum < LARGE:
                truth = wheel.ask(data, max(2 * arena.minimum, GENEROUS))
                if "total" in truth:
                    assert (truth["head"], truth["tail"]) == (arena.head, arena.tail), truth["log"]
                    same += 1
    assert same > 500
