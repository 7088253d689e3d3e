"""Models of the operators that move, reduce, look up, run subgraphs, keep state or hear."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flatbuffers import flexbuffers
from numpy.typing import ArrayLike

from layertap.testing.micro_cases import SCALE, Graph, Maker
from layertap.testing.tflite import OptionValue, write_tflite


def _shaped(
    name: str,
    shape: Sequence[int],
    result: Sequence[int],
    *numbers: ArrayLike,
    dtype: str = "float32",
    out: str = "",
    options: Mapping[int, OptionValue] | None = None,
) -> Maker:
    """One operator on an input and constants of whole numbers."""

    def make() -> bytes:
        graph = Graph()
        x = graph.tensor(shape, dtype)
        held = [graph.constant(np.array(values, np.int32)) for values in numbers]
        output = graph.tensor(result, out or dtype)
        graph.op(name, [x, *held], [output], options)
        return graph.model([x], [output])

    return make


def _moves() -> Iterator[tuple[str, Maker]]:
    for dtype in ("float32", "int8"):
        yield (
            f"BATCH_TO_SPACE_ND {dtype}",
            _shaped(
                "BATCH_TO_SPACE_ND",
                (4, 2, 2, 3),
                (1, 4, 4, 3),
                (2, 2),
                ((0, 0), (0, 0)),
                dtype=dtype,
            ),
        )
        yield (
            f"SPACE_TO_BATCH_ND {dtype}",
            _shaped(
                "SPACE_TO_BATCH_ND",
                (1, 4, 4, 3),
                (4, 2, 2, 3),
                (2, 2),
                ((0, 0), (0, 0)),
                dtype=dtype,
            ),
        )
        yield (
            f"DEPTH_TO_SPACE {dtype}",
            _shaped("DEPTH_TO_SPACE", (1, 2, 2, 8), (1, 4, 4, 2), dtype=dtype, options={0: 2}),
        )
        yield (
            f"SPACE_TO_DEPTH {dtype}",
            _shaped("SPACE_TO_DEPTH", (1, 4, 4, 2), (1, 2, 2, 8), dtype=dtype, options={0: 2}),
        )
        yield (
            f"TRANSPOSE {dtype}",
            _shaped("TRANSPOSE", (2, 3, 4), (4, 2, 3), (2, 0, 1), dtype=dtype),
        )
        yield f"PAD {dtype}", _shaped("PAD", (2, 3), (4, 5), ((1, 1), (1, 1)), dtype=dtype)
        yield (
            f"MIRROR_PAD {dtype}",
            _shaped("MIRROR_PAD", (2, 3), (4, 5), ((1, 1), (1, 1)), dtype=dtype, options={0: 0}),
        )
        yield f"SLICE {dtype}", _shaped("SLICE", (4, 6), (2, 3), (1, 1), (2, 3), dtype=dtype)
        yield (
            f"STRIDED_SLICE {dtype}",
            _shaped(
                "STRIDED_SLICE", (4, 6), (2, 3), (0, 0), (4, 6), (2, 2), dtype=dtype, options={0: 0}
            ),
        )
        yield (
            f"GATHER {dtype}",
            _shaped("GATHER", (4, 6), (3, 6), (0, 2, 3), dtype=dtype, options={0: 0, 1: 0}),
        )
        yield f"GATHER_ND {dtype}", _shaped("GATHER_ND", (4, 6), (2, 6), ((1,), (3,)), dtype=dtype)
        yield (
            f"RESIZE_BILINEAR {dtype}",
            _shaped(
                "RESIZE_BILINEAR",
                (1, 2, 2, 3),
                (1, 4, 4, 3),
                (4, 4),
                dtype=dtype,
                options={2: False},
            ),
        )
        yield f"RESIZE_NEAREST_NEIGHBOR {dtype}", _shaped(
            "RESIZE_NEAREST_NEIGHBOR", (1, 2, 2, 3), (1, 4, 4, 3), (4, 4), dtype=dtype,
            options={0: False},
        )  # fmt: skip
        yield f"RESHAPE {dtype}", _shaped("RESHAPE", (2, 6), (3, 4), (3, 4), dtype=dtype)
        yield f"RESHAPE open {dtype}", _shaped("RESHAPE", (2, 6), (3, -1), (3, -1), dtype=dtype)
        yield (
            f"ARG_MAX {dtype}",
            _shaped("ARG_MAX", (2, 6), (2,), 1, dtype=dtype, out="int32", options={0: 2}),
        )
        yield (
            f"ARG_MIN {dtype}",
            _shaped("ARG_MIN", (2, 6), (2,), 1, dtype=dtype, out="int32", options={0: 2}),
        )
        yield (
            f"CUMSUM {dtype}",
            _shaped("CUMSUM", (2, 6), (2, 6), 1, dtype=dtype, options={0: False}),
        )
        yield f"SQUEEZE {dtype}", _shaped("SQUEEZE", (1, 6, 1), (6,), dtype=dtype)
        yield f"EXPAND_DIMS {dtype}", _shaped("EXPAND_DIMS", (2, 6), (1, 2, 6), 0, dtype=dtype)
        yield f"UNPACK {dtype}", _parts("UNPACK", dtype)
        yield f"SPLIT {dtype}", _parts("SPLIT", dtype)
        yield f"SPLIT_V {dtype}", _parts("SPLIT_V", dtype)
        yield f"BROADCAST_TO {dtype}", _shaped("BROADCAST_TO", (1, 6), (4, 6), (4, 6), dtype=dtype)
        yield f"SELECT_V2 {dtype}", _select(dtype)
        yield f"PADV2 {dtype}", _padded(dtype)
        yield f"DYNAMIC_UPDATE_SLICE {dtype}", _update(dtype)
    yield "REVERSE_V2", _shaped("REVERSE_V2", (2, 6), (2, 6), (1,))
    yield "BROADCAST_ARGS", _arguments
    yield "FILL", _fill
    yield "EMBEDDING_LOOKUP float32", _embedding("float32")
    yield "EMBEDDING_LOOKUP int8", _embedding("int8")
    yield "RESHAPE without shape", _shaped("RESHAPE", (2, 6), (12,), options={0: [12]})


def _reductions() -> Iterator[tuple[str, Maker]]:
    for dtype in ("float32", "int8", "int16"):
        for name in ("MEAN", "SUM"):
            made = _shaped(name, (2, 4, 4, 3), (2, 1, 1, 3), (1, 2), dtype=dtype, options={0: True})
            yield f"{name} {dtype}", made
    for dtype in ("float32", "int8"):
        for name in ("REDUCE_MAX", "REDUCE_MIN"):
            made = _shaped(name, (2, 4, 3), (2, 1, 3), (1,), dtype=dtype, options={0: True})
            yield f"{name} {dtype}", made
    yield "REDUCE_ALL", _shaped("REDUCE_ALL", (2, 4), (2,), (1,), dtype="bool", options={0: False})


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


Tensor = tuple[Sequence[int], str]


def _signal(
    name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], **options: int
) -> Maker:
    def make() -> bytes:
        graph = Graph()
        given = [graph.tensor(shape, dtype, scales=()) for shape, dtype in inputs]
        results = [graph.tensor(shape, dtype, scales=()) for shape, dtype in outputs]
        graph.op(name, given, results, custom=_custom(**options) if options else b"")
        return graph.model(given, results)

    return make


_INT16, _INT32, _FLOAT = 7, 2, 0


def _sounds() -> Iterator[tuple[str, Maker]]:
    short, long = "int16", "uint32"
    yield (
        "SignalDelay",
        _signal("SignalDelay", [((3, 32), short)], [((3, 32), short)], delay_length=5),
    )
    yield (
        "SignalEnergy",
        _signal("SignalEnergy", [((64,), short)], [((32,), long)], start_index=2, end_index=20),
    )
    yield (
        "SignalFftAutoScale",
        _signal("SignalFftAutoScale", [((64,), short)], [((64,), short), ((), "int32")]),
    )
    yield (
        "SignalFilterBank",
        _signal(
            "SignalFilterBank",
            [((32,), long), *[((8,), short)] * 2, *[((5,), short)] * 3],
            [((4,), "uint64")],
            num_channels=4,
        ),
    )
    yield "SignalFilterBankLog", _signal(
        "SignalFilterBankLog", [((4,), long)], [((4,), short)],
        input_correction_bits=3, output_scale=1600,
    )  # fmt: skip
    yield "SignalFilterBankSpectralSubtraction", _signal(
        "SignalFilterBankSpectralSubtraction", [((4,), long)], [((4,), long)] * 2,
        alternate_one_minus_smoothing=1, alternate_smoothing=1, clamping=1, min_signal_remaining=1,
        num_channels=4, one_minus_smoothing=1, smoothing=1, smoothing_bits=10,
        spectral_subtraction_bits=14,
    )  # fmt: skip
    yield (
        "SignalFilterBankSquareRoot",
        _signal("SignalFilterBankSquareRoot", [((4,), "uint64"), ((), "int32")], [((4,), long)]),
    )
    yield "SignalFramer", _signal(
        "SignalFramer", [((2, 32), short)], [((2, 2, 40), short), ((), "bool")],
        frame_size=40, frame_step=16, prefill=1,
    )  # fmt: skip
    yield (
        "SignalPCAN",
        _signal(
            "SignalPCAN", [((4,), long), ((4,), long), ((125,), short)], [((4,), long)], snr_shift=6
        ),
    )
    yield "SignalStacker", _signal(
        "SignalStacker", [((4,), short)], [((12,), short), ((), "bool")],
        num_channels=4, stacker_left_context=1, stacker_right_context=1, stacker_step=2,
    )  # fmt: skip
    yield (
        "SignalWindow",
        _signal("SignalWindow", [((2, 32), short), ((32,), short)], [((2, 32), short)], shift=12),
    )
    for kind, dtype in ((_INT16, short), (_INT32, "int32"), (_FLOAT, "float32")):
        yield (
            f"SignalRfft {dtype}",
            _signal("SignalRfft", [((2, 32), dtype)], [((2, 34), dtype)], T=kind, fft_length=32),
        )
        yield (
            f"SignalIrfft {dtype}",
            _signal("SignalIrfft", [((2, 34), dtype)], [((2, 32), dtype)], T=kind, fft_length=32),
        )
    for kind, dtype in ((_INT16, short), (_FLOAT, "float32")):
        yield (
            f"SignalOverlapAdd {dtype}",
            _signal(
                "SignalOverlapAdd", [((3, 2, 32), dtype)], [((3, 32), dtype)], T=kind, frame_step=16
            ),
        )
    yield "CIRCULAR_BUFFER", _ring


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
    options = _custom(
        max_detections=3, max_classes_per_detection=1, num_classes=2, nms_score_threshold=0,
        nms_iou_threshold=1, y_scale=10, x_scale=10, h_scale=5, w_scale=5,
    )  # fmt: skip
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
            *_sounds(),
            ("TFLite_Detection_PostProcess", _detection),
            *((f"TFLM_DECODE {scheme}", _decode(scheme)) for scheme in range(3)),
            ("TFLM_DECODE per channel", _decode(2, channels=2)),
        ]
    )


__all__ = ["graph_cases"]
