"""Models of the operators that move, reduce, look up, run subgraphs, keep state or hear."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flatbuffers import flexbuffers
from numpy.typing import ArrayLike

from layertap.testing.micro_cases import SCALE, Graph, Maker
from layertap.testing.tflite import OptionValue, write_tflite

Shape = Sequence[int]
Options = Mapping[int, OptionValue]


class Move(NamedTuple):
    """One operator (the first word of ``name``) on an input and constants of whole numbers; the
    result is of the input's dtype unless ``out`` names one."""

    name: str
    shape: Shape
    result: Shape
    numbers: Sequence[ArrayLike] = ()
    options: Options | None = None
    out: str = ""


ZEROS, ONES = ((0, 0), (0, 0)), ((1, 1), (1, 1))
MOVES = (
    Move("BATCH_TO_SPACE_ND", (4, 2, 2, 3), (1, 4, 4, 3), [(2, 2), ZEROS]),
    Move("SPACE_TO_BATCH_ND", (1, 4, 4, 3), (4, 2, 2, 3), [(2, 2), ZEROS]),
    Move("DEPTH_TO_SPACE", (1, 2, 2, 8), (1, 4, 4, 2), options={0: 2}),
    Move("SPACE_TO_DEPTH", (1, 4, 4, 2), (1, 2, 2, 8), options={0: 2}),
    Move("TRANSPOSE", (2, 3, 4), (4, 2, 3), [(2, 0, 1)]),
    Move("PAD", (2, 3), (4, 5), [ONES]),
    Move("MIRROR_PAD", (2, 3), (4, 5), [ONES], {0: 0}),
    Move("SLICE", (4, 6), (2, 3), [(1, 1), (2, 3)]),
    Move("STRIDED_SLICE", (4, 6), (2, 3), [(0, 0), (4, 6), (2, 2)], {0: 0}),
    Move("GATHER", (4, 6), (3, 6), [(0, 2, 3)], {0: 0, 1: 0}),
    Move("GATHER_ND", (4, 6), (2, 6), [((1,), (3,))]),
    Move("RESIZE_BILINEAR", (1, 2, 2, 3), (1, 4, 4, 3), [(4, 4)], {2: False}),
    Move("RESIZE_NEAREST_NEIGHBOR", (1, 2, 2, 3), (1, 4, 4, 3), [(4, 4)], {0: False}),
    Move("RESHAPE", (2, 6), (3, 4), [(3, 4)]),
    Move("RESHAPE open", (2, 6), (3, -1), [(3, -1)]),
    Move("ARG_MAX", (2, 6), (2,), [1], {0: 2}, out="int32"),
    Move("ARG_MIN", (2, 6), (2,), [1], {0: 2}, out="int32"),
    Move("CUMSUM", (2, 6), (2, 6), [1], {0: False}),
    Move("SQUEEZE", (1, 6, 1), (6,)),
    Move("EXPAND_DIMS", (2, 6), (1, 2, 6), [0]),
    Move("BROADCAST_TO", (1, 6), (4, 6), [(4, 6)]),
)
PARTED = ("UNPACK", "SPLIT", "SPLIT_V")


def _shaped(move: Move, dtype: str) -> Maker:
    def make() -> bytes:
        graph = Graph()
        x = graph.tensor(move.shape, dtype)
        held = [graph.constant(np.array(values, np.int32)) for values in move.numbers]
        output = graph.tensor(move.result, move.out or dtype)
        graph.op(move.name.partition(" ")[0], [x, *held], [output], move.options)
        return graph.model([x], [output])

    return make


def _moves() -> Iterator[tuple[str, Maker]]:
    for dtype in ("float32", "int8"):
        yield from ((f"{move.name} {dtype}", _shaped(move, dtype)) for move in MOVES)
        yield from ((f"{name} {dtype}", _parts(name, dtype)) for name in PARTED)
        yield f"SELECT_V2 {dtype}", _select(dtype)
        yield f"PADV2 {dtype}", _padded(dtype)
        yield f"DYNAMIC_UPDATE_SLICE {dtype}", _update(dtype)
        yield f"EMBEDDING_LOOKUP {dtype}", _embedding(dtype)
    yield "REVERSE_V2", _shaped(Move("REVERSE_V2", (2, 6), (2, 6), [(1,)]), "float32")
    yield "BROADCAST_ARGS", _arguments
    yield "FILL", _fill
    shapeless = Move("RESHAPE", (2, 6), (12,), options={0: [12]})
    yield "RESHAPE without shape", _shaped(shapeless, "float32")


REDUCTIONS = (
    (Move("MEAN", (2, 4, 4, 3), (2, 1, 1, 3), [(1, 2)], {0: True}), ("float32", "int8", "int16")),
    (Move("SUM", (2, 4, 4, 3), (2, 1, 1, 3), [(1, 2)], {0: True}), ("float32", "int8", "int16")),
    (Move("REDUCE_MAX", (2, 4, 3), (2, 1, 3), [(1,)], {0: True}), ("float32", "int8")),
    (Move("REDUCE_MIN", (2, 4, 3), (2, 1, 3), [(1,)], {0: True}), ("float32", "int8")),
    (Move("REDUCE_ALL", (2, 4), (2,), [(1,)], {0: False}), ("bool",)),
)


def _reductions() -> Iterator[tuple[str, Maker]]:
    for move, dtypes in REDUCTIONS:
        yield from ((f"{move.name} {dtype}", _shaped(move, dtype)) for dtype in dtypes)


def _parts(name: str, dtype: str) -> Maker:
    def make() -> bytes:
        graph = Graph()
        x = graph.tensor((3, 4), dtype)
        shape = (4,) if name == "UNPACK" else (1, 4)
        outputs = [graph.tensor(shape, dtype) for _ in range(3)]
        axis = graph.constant(np.array(0, np.int32)) if name != "UNPACK" else -1
        options: dict[int, OptionValue] = {0: 3}
        if name == "SPLIT":
            graph.op(name, [axis, x], outputs, options)
        elif name == "SPLIT_V":
            graph.op(name, [x, graph.numbers(1, 1, 1), axis], outputs, options)
        else:
            graph.op(name, [x], outputs, options | {1: 0})
        return graph.model([x], outputs)

    return make


def _select(dtype: str) -> Maker:
    def make() -> bytes:
        graph = Graph()
        inputs = [graph.tensor((2, 6), "bool"), *(graph.tensor((2, 6), dtype) for _ in range(2))]
        output = graph.tensor((2, 6), dtype)
        graph.op("SELECT_V2", inputs, [output])
        return graph.model(inputs, [output])

    return make


def _padded(dtype: str) -> Maker:
    def make() -> bytes:
        graph = Graph()
        x = graph.tensor((2, 3), dtype)
        sizes = graph.constant(np.array(((1, 1), (1, 1)), np.int32))
        value = graph.constant(np.array([0], dtype), **(SCALE if dtype == "int8" else {}))
        output = graph.tensor((4, 5), dtype)
        graph.op("PADV2", [x, sizes, value], [output])
        return graph.model([x], [output])

    return make


def _update(dtype: str) -> Maker:
    def make() -> bytes:
        graph = Graph()
        inputs = [graph.tensor((4, 6), dtype), graph.tensor((1, 6), dtype)]
        output = graph.tensor((4, 6), dtype)
        graph.op("DYNAMIC_UPDATE_SLICE", [*inputs, graph.numbers(1, 0)], [output])
        return graph.model(inputs, [output])

    return make


def _arguments() -> bytes:
    graph = Graph()
    inputs = [graph.tensor((2,), "int32"), graph.tensor((3,), "int32")]
    output = graph.tensor((3,), "int32")
    graph.op("BROADCAST_ARGS", inputs, [output])
    return graph.model(inputs, [output])


def _fill() -> bytes:
    graph = Graph()
    x = graph.tensor((), "float32")
    output = graph.tensor((4, 6), "float32")
    graph.op("FILL", [graph.numbers(4, 6), x], [output])
    return graph.model([x], [output])


def _embedding(dtype: str) -> Maker:
    def make() -> bytes:
        graph = Graph()
        x = graph.tensor((3,), "int32")
        output = graph.tensor((3, 4), dtype)
        table = graph.weights((9, 4), dtype, **(SCALE if dtype == "int8" else {}))
        graph.op("EMBEDDING_LOOKUP", [x, table], [output])
        return graph.model([x], [output])

    return make


def _unary_graph(name: str, inputs: int, dtype: str = "float32", out: str = "") -> Any:
    graph = Graph()
    given = [graph.tensor((1, 4), dtype) for _ in range(inputs)]
    output = graph.tensor((1, 4), out or dtype)
    graph.op(name, given, [output])
    return graph.spec(given, [output])


def _if() -> bytes:
    graph = Graph()
    chooser, x, y = graph.tensor((1,), "bool"), graph.tensor((1, 4)), graph.tensor((1, 4))
    middle, output = graph.tensor((1, 4)), graph.tensor((1, 4))
    graph.op("IF", [chooser, x, y], [middle], {0: 1, 1: 2})
    graph.op("RELU", [middle], [output])
    branches = [_unary_graph(name, 2) for name in ("ADD", "MUL")]
    return write_tflite(graph.spec([chooser, x, y], [output]), *branches)


def _while() -> bytes:
    graph = Graph()
    count, x = graph.tensor((1,), "int32"), graph.tensor((1, 4))
    after, middle, output = graph.tensor((1,), "int32"), graph.tensor((1, 4)), graph.tensor((1, 4))
    graph.op("WHILE", [count, x], [after, middle], {0: 1, 1: 2})
    graph.op("RELU", [middle], [output])
    condition = Graph()
    given = [condition.tensor((1,), "int32"), condition.tensor((1, 4))]
    less = condition.tensor((1,), "bool")
    condition.op("LESS", [given[0], condition.numbers(3)], [less])
    body = Graph()
    held = [body.tensor((1,), "int32"), body.tensor((1, 4))]
    more, doubled = body.tensor((1,), "int32"), body.tensor((1, 4))
    body.op("ADD", [held[0], body.numbers(1)], [more])
    body.op("ADD", [held[1], held[1]], [doubled])
    return write_tflite(
        graph.spec([count, x], [after, output]),
        condition.spec(given, [less]),
        body.spec(held, [more, doubled]),
    )


def _resources() -> bytes:
    """Two variables, set once by a subgraph, read and set by the main one."""
    graph = Graph()
    x = graph.tensor((1, 4))
    handles = [graph.tensor((1,), "resource") for _ in range(2)]
    values = [graph.tensor((1, 4)) for _ in range(2)]
    total, output = graph.tensor((1, 4)), graph.tensor((1, 4))
    graph.op("CALL_ONCE", [], [], {0: 1})
    for name, handle, value in zip(("a", "b"), handles, values, strict=True):
        graph.op("VAR_HANDLE", [], [handle], {0: "", 1: name})
        graph.op("READ_VARIABLE", [handle], [value])
    graph.op("ADD", [values[0], x], [total])
    graph.op("ADD", [values[1], total], [output])
    graph.op("ASSIGN_VARIABLE", [handles[0], total], [])
    first = Graph()
    for name in ("a", "b"):
        handle = first.tensor((1,), "resource")
        first.op("VAR_HANDLE", [], [handle], {0: "", 1: name})
        first.op("ASSIGN_VARIABLE", [handle, first.constant(np.ones((1, 4), np.float32))], [])
    return write_tflite(graph.spec([x], [output]), first.spec([], []))


def _custom(**entries: int) -> bytes:
    builder = flexbuffers.Builder()
    with builder.Map():
        for key, value in entries.items():
            builder.Int(key, value)
    return bytes(builder.Finish())


Tensor = tuple[Shape, str]


class Sound(NamedTuple):
    """One custom operator (the first word of ``name``), what it takes and gives, its options."""

    name: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    options: Mapping[str, int] = {}


def _short(*shape: int) -> Tensor:
    return shape, "int16"


def _long(*shape: int) -> Tensor:
    return shape, "uint32"


SUBTRACTION = {
    "alternate_one_minus_smoothing": 1,
    "alternate_smoothing": 1,
    "clamping": 1,
    "min_signal_remaining": 1,
    "num_channels": 4,
    "one_minus_smoothing": 1,
    "smoothing": 1,
    "smoothing_bits": 10,
    "spectral_subtraction_bits": 14,
}
STACKING = {
    "num_channels": 4,
    "stacker_left_context": 1,
    "stacker_right_context": 1,
    "stacker_step": 2,
}
BANK = [_long(32), _short(8), _short(8), _short(5), _short(5), _short(5)]
LOG = {"input_correction_bits": 3, "output_scale": 1600}
FRAMES = {"frame_size": 40, "frame_step": 16, "prefill": 1}
WHOLE: Tensor = ((), "int32")
TRUTH: Tensor = ((), "bool")
WIDE: Tensor = ((4,), "uint64")

SOUNDS = (
    Sound("SignalDelay", [_short(3, 32)], [_short(3, 32)], {"delay_length": 5}),
    Sound("SignalEnergy", [_short(64)], [_long(32)], {"start_index": 2, "end_index": 20}),
    Sound("SignalFftAutoScale", [_short(64)], [_short(64), WHOLE]),
    Sound("SignalFilterBank", BANK, [WIDE], {"num_channels": 4}),
    Sound("SignalFilterBankLog", [_long(4)], [_short(4)], LOG),
    Sound("SignalFilterBankSpectralSubtraction", [_long(4)], [_long(4), _long(4)], SUBTRACTION),
    Sound("SignalFilterBankSquareRoot", [WIDE, WHOLE], [_long(4)]),
    Sound("SignalFramer", [_short(2, 32)], [_short(2, 2, 40), TRUTH], FRAMES),
    Sound("SignalPCAN", [_long(4), _long(4), _short(125)], [_long(4)], {"snr_shift": 6}),
    Sound("SignalStacker", [_short(4)], [_short(12), TRUTH], STACKING),
    Sound("SignalWindow", [_short(2, 32), _short(32)], [_short(2, 32)], {"shift": 12}),
)

SIGNAL_TYPES = {"int16": 7, "int32": 2, "float32": 0}
"""The option T of kernels that there are for several dtypes."""


def _signal(sound: Sound) -> Maker:
    def make() -> bytes:
        graph = Graph()
        given = [graph.tensor(shape, dtype, scales=()) for shape, dtype in sound.inputs]
        results = [graph.tensor(shape, dtype, scales=()) for shape, dtype in sound.outputs]
        options = _custom(**sound.options) if sound.options else b""
        graph.op(sound.name.partition(" ")[0], given, results, custom=options)
        return graph.model(given, results)

    return make


def _transforms() -> Iterator[Sound]:
    for dtype, kind in SIGNAL_TYPES.items():
        times, waves = ((2, 32), dtype), ((2, 34), dtype)
        options = {"T": kind, "fft_length": 32}
        yield Sound(f"SignalRfft {dtype}", [times], [waves], options)
        yield Sound(f"SignalIrfft {dtype}", [waves], [times], options)
    for dtype in ("int16", "float32"):
        options = {"T": SIGNAL_TYPES[dtype], "frame_step": 16}
        frames, joined = ((3, 2, 32), dtype), ((3, 32), dtype)
        yield Sound(f"SignalOverlapAdd {dtype}", [frames], [joined], options)


def _ring() -> bytes:
    graph = Graph()
    x = graph.tensor((1, 1, 1, 8), "int8")
    output = graph.tensor((1, 5, 1, 8), "int8")
    graph.op("CIRCULAR_BUFFER", [x], [output], custom=_custom(cycles_max=2))
    return graph.model([x], [output])


def _detection() -> bytes:
    graph = Graph()
    inputs = [graph.tensor((1, 6, 4)), graph.tensor((1, 6, 3))]
    anchors = graph.weights((6, 4))
    outputs = [graph.tensor(shape) for shape in ((1, 3, 4), (1, 3), (1, 3), (1,))]
    limits = {"max_detections": 3, "max_classes_per_detection": 1, "num_classes": 2}
    thresholds = {"nms_score_threshold": 0, "nms_iou_threshold": 1}
    scales = {"y_scale": 10, "x_scale": 10, "h_scale": 5, "w_scale": 5}
    options = _custom(**limits, **thresholds, **scales)
    graph.op("TFLite_Detection_PostProcess", [*inputs, anchors], outputs, custom=options)
    return graph.model(inputs, outputs)


def _decode(scheme: int, channels: int = 1) -> Maker:
    """A constant that is decoded when the model runs: by table, Huffman code, or filled up."""

    def make() -> bytes:
        graph = Graph()
        x, output = graph.tensor((1, 8), "int8"), graph.tensor((1, 8), "int8")
        coded = graph.tensor((1,), "uint8", raw=b"\xa5")
        header = struct.pack("<BB2xBBB9x", scheme, 1, 1, 1, 2)
        side = graph.tensor((64,), "uint8", raw=header + bytes(48))
        points = [1] * channels if channels > 1 else [0]
        decoded = graph.tensor((2, 4), "int8", scales=[0.5] * channels, zero_points=points)
        graph.op("TFLM_DECODE", [coded, side], [decoded])
        graph.op("RELU", [x], [output])
        return graph.model([x], [output, decoded])

    return make


def graph_cases() -> dict[str, Maker]:
    """Models by a name that begins with the operator that they are about."""
    return dict(
        [
            *_moves(),
            *_reductions(),
            ("IF", _if),
            ("WHILE", _while),
            ("CALL_ONCE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE", _resources),
            *((sound.name, _signal(sound)) for sound in (*SOUNDS, *_transforms())),
            ("CIRCULAR_BUFFER", _ring),
            ("TFLite_Detection_PostProcess", _detection),
            *((f"TFLM_DECODE {scheme}", _decode(scheme)) for scheme in range(3)),
            ("TFLM_DECODE per channel", _decode(2, channels=2)),
        ]
    )


__all__ = ["graph_cases"]
