"""A small model for each operator that TensorFlow Lite Micro has, in the types its kernels take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from layertap.core.dtypes import Array
from layertap.testing.tflite import (
    OperatorSpec,
    OptionValue,
    SubgraphSpec,
    TensorSpec,
    write_tflite,
)

Maker = Callable[[], bytes]

SCALE = {"scales": [0.5], "zero_points": [0]}
"""One scale for a whole tensor."""

_BYTE = {"int8": 8, "int16": 16}


class Graph:
    """One subgraph that grows operator by operator; tensors are known by their index."""

    def __init__(self) -> None:
        self.tensors: list[TensorSpec] = []
        self.operators: list[OperatorSpec] = []

    def tensor(self, shape: Sequence[int], dtype: str = "float32", **more: Any) -> int:
        if dtype in _BYTE and "scales" not in more:
            more |= SCALE
        self.tensors.append(TensorSpec(f"t{len(self.tensors)}", shape, dtype, **more))
        return len(self.tensors) - 1

    def constant(self, value: Array, **more: Any) -> int:
        return self.tensor(value.shape, value.dtype.name, data=value, **more)

    def numbers(self, *values: int) -> int:
        return self.constant(np.array(values, np.int32))

    def weights(self, shape: Sequence[int], dtype: str = "float32", **more: Any) -> int:
        """A constant of ones; ``axis`` with ``channels`` gives it a scale per channel."""
        channels = more.pop("channels", 0)
        if channels:
            more |= {"scales": [0.5] * channels, "zero_points": [0] * channels}
        if dtype == "int4":
            count = int(np.prod(shape))
            more = SCALE | more
            return self.tensor(shape, dtype, raw=bytes([0x11]) * -(-count // 2), **more)
        return self.constant(np.ones(shape, dtype), **more)

    def op(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Mapping[int, OptionValue] | None = None,
        **more: Any,
    ) -> None:
        self.operators.append(OperatorSpec(name, inputs, outputs, options or {}, **more))

    def spec(self, inputs: Sequence[int], outputs: Sequence[int]) -> SubgraphSpec:
        return SubgraphSpec(self.tensors, inputs, outputs, self.operators)

    def model(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        return write_tflite(self.spec(inputs, outputs))


def _map(
    name: str,
    shapes: Sequence[Sequence[int]],
    result: Sequence[int],
    dtype: str = "float32",
    out: str = "",
    options: Mapping[int, OptionValue] | None = None,
    **scales: Any,
) -> Maker:
    """A model of one operator whose operands are all inputs of one type."""

    def make() -> bytes:
        graph = Graph()
        inputs = [graph.tensor(shape, dtype) for shape in shapes]
        output = graph.tensor(result, out or dtype, **scales)
        graph.op(name, inputs, [output], options)
        return graph.model(inputs, [output])

    return make


def _scale(scale: float, zero: int) -> dict[str, Any]:
    return {"scales": [scale], "zero_points": [zero]}


_SHAPE = (1, 8)
_IMAGE = (1, 4, 4, 4)

_UNARY = """
    ABS CEIL COS ELU EXP FLOOR HARD_SWISH L2_NORMALIZATION LEAKY_RELU LOG LOGISTIC LOG_SOFTMAX NEG
    RELU RELU6 ROUND RSQRT SIN SOFTMAX SQRT SQUARE TANH ZEROS_LIKE
"""
_UNARY_INT8: dict[str, dict[str, Any]] = {
    "ABS": {},
    "ELU": {},
    "HARD_SWISH": {},
    "L2_NORMALIZATION": _scale(1 / 128, 0),
    "LEAKY_RELU": {},
    "LOGISTIC": _scale(1 / 256, -128),
    "LOG_SOFTMAX": _scale(16 / 256, 127),
    "RELU": {},
    "RELU6": {},
    "RSQRT": {},
    "SOFTMAX": _scale(1 / 256, -128),
    "TANH": _scale(1 / 128, 0),
}
_UNARY_INT16: dict[str, dict[str, Any]] = {
    "ABS": {},
    "LEAKY_RELU": {},
    "LOGISTIC": _scale(1 / 32768, 0),
    "RELU": {},
    "SOFTMAX": _scale(1 / 32768, 0),
    "TANH": _scale(1 / 32768, 0),
}
_BINARY = "ADD SUB MUL DIV MAXIMUM MINIMUM FLOOR_DIV FLOOR_MOD SQUARED_DIFFERENCE PRELU"
_BINARY_INT8 = "ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE PRELU"
_COMPARISONS = "EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL"
_OPTIONS: dict[str, dict[int, OptionValue]] = {"SOFTMAX": {0: 1.0}, "LEAKY_RELU": {0: 0.5}}


def _elementwise() -> Iterator[tuple[str, Maker]]:
    for name in _UNARY.split():
        yield f"{name} float32", _map(name, [_SHAPE], _SHAPE, options=_OPTIONS.get(name))
    for dtype, table in (("int8", _UNARY_INT8), ("int16", _UNARY_INT16)):
        for name, more in table.items():
            made = _map(name, [_SHAPE], _SHAPE, dtype, options=_OPTIONS.get(name), **more)
            yield f"{name} {dtype}", made
    for name in _BINARY.split():
        yield f"{name} float32", _map(name, [_SHAPE, _SHAPE], _SHAPE)
        yield f"{name} broadcast", _map(name, [(2, 8), (1, 8)], (2, 8))
    for name in _BINARY_INT8.split():
        yield f"{name} int8", _map(name, [_SHAPE, _SHAPE], _SHAPE, "int8")
    for name in ("ADD", "SUB", "MUL"):
        yield f"{name} int16", _map(name, [_SHAPE, _SHAPE], _SHAPE, "int16")
    for name in _COMPARISONS.split():
        for dtype in ("float32", "int8"):
            yield f"{name} {dtype}", _map(name, [_SHAPE, _SHAPE], _SHAPE, dtype, "bool")
    for name, count in (("LOGICAL_AND", 2), ("LOGICAL_OR", 2), ("LOGICAL_NOT", 1)):
        yield name, _map(name, [_SHAPE] * count, _SHAPE, "bool")
    for dtype in ("float32", "int8"):
        yield f"ADD_N {dtype}", _map("ADD_N", [_SHAPE] * 5, _SHAPE, dtype)
        joined = _map("CONCATENATION", [_SHAPE] * 3, (1, 24), dtype, options={0: 1})
        yield f"CONCATENATION {dtype}", joined
        yield f"PACK {dtype}", _map("PACK", [_SHAPE] * 3, (3, 1, 8), dtype, options={0: 3})
    yield "QUANTIZE", _map("QUANTIZE", [_SHAPE], _SHAPE, out="int8")
    yield "QUANTIZE int16", _map("QUANTIZE", [_SHAPE], _SHAPE, "int16", "int8")
    yield "DEQUANTIZE", _map("DEQUANTIZE", [_SHAPE], _SHAPE, "int8", "float32")
    yield "CAST", _map("CAST", [_SHAPE], _SHAPE, out="int32", options={0: 0, 1: 2})
    yield "SHAPE", _map("SHAPE", [(1, 8, 3)], (3,), out="int32", options={0: 2})


def _pool(name: str, dtype: str) -> Maker:
    options: dict[int, OptionValue] = {0: 1, 1: 2, 2: 2, 3: 2, 4: 2}
    return _map(name, [_IMAGE], (1, 2, 2, 4), dtype, options=options)


def _convolution(name: str, dtype: str, weights: str, bias: str = "", channels: int = 0) -> Maker:
    """Without ``bias`` it has none; with ``channels`` a scale for each of them."""

    def make() -> bytes:
        graph = Graph()
        x = graph.tensor(_IMAGE, dtype)
        shape, axis = ((6, 3, 3, 4), 0) if name == "CONV_2D" else ((1, 3, 3, 4), 3)
        count = shape[axis]
        more: dict[str, Any] = {"axis": axis, "channels": channels and count} if channels else {}
        inputs = [x, graph.weights(shape, weights, **(more or _one(weights)))]
        if bias:
            inputs.append(graph.weights((count,), bias, channels=count if channels else 1))
        output = graph.tensor((1, 4, 4, count), dtype)
        options: dict[int, OptionValue] = {0: 0, 1: 1, 2: 1}
        options |= {4: 1, 5: 1} if name == "CONV_2D" else {3: 1, 5: 1, 6: 1}
        graph.op(name, inputs, [output], options)
        return graph.model([x], [output])

    return make


def _one(dtype: str) -> dict[str, Any]:
    return {} if dtype == "float32" else dict(SCALE)


def _transposed(dtype: str, weights: str, bias: str, channels: int = 0) -> Maker:
    def make() -> bytes:
        graph = Graph()
        x = graph.tensor(_IMAGE, dtype)
        more = {"channels": channels} if channels else _one(weights)
        inputs = [graph.numbers(1, 8, 8, 5), graph.weights((5, 3, 3, 4), weights, **more), x]
        if bias:
            inputs.append(graph.weights((5,), bias, **({"channels": channels} if channels else {})))
        output = graph.tensor((1, 8, 8, 5), dtype)
        graph.op("TRANSPOSE_CONV", inputs, [output], {0: 0, 1: 2, 2: 2})
        return graph.model([x], [output])

    return make


def _dense(dtype: str, weights: str, bias: str, channels: int = 0) -> Maker:
    def make() -> bytes:
        graph = Graph()
        x = graph.tensor(_SHAPE, dtype)
        more = {"channels": channels} if channels else _one(weights)
        held = graph.weights((7, 8), weights, **more)
        scaled = {} if dtype == "float32" else _scale(0.25, 0)
        inputs = [x, held, graph.weights((7,), bias, **scaled) if bias else -1]
        output = graph.tensor((1, 7), dtype)
        graph.op("FULLY_CONNECTED", inputs, [output], {0: 0})
        return graph.model([x], [output])

    return make


def _layers() -> Iterator[tuple[str, Maker]]:
    for name in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        for dtype in ("float32", "int8", "int16"):
            yield f"{name} {dtype}", _pool(name, dtype)
    yield "L2_POOL_2D", _pool("L2_POOL_2D", "float32")
    for name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        yield f"{name} float32", _convolution(name, "float32", "float32", "float32")
        yield f"{name} no bias", _convolution(name, "float32", "float32")
        yield f"{name} int8", _convolution(name, "int8", "int8", "int32", channels=1)
        yield f"{name} int16", _convolution(name, "int16", "int8", "int64", channels=1)
        yield f"{name} int4", _convolution(name, "int8", "int4", "int32", channels=1)
    yield "TRANSPOSE_CONV float32", _transposed("float32", "float32", "float32")
    yield "TRANSPOSE_CONV no bias", _transposed("float32", "float32", "")
    yield "TRANSPOSE_CONV int8", _transposed("int8", "int8", "int32", channels=5)
    yield "TRANSPOSE_CONV int16", _transposed("int16", "int8", "int64", channels=5)
    yield "TRANSPOSE_CONV int16 bias", _transposed("int16", "int8", "int16", channels=5)
    yield "FULLY_CONNECTED float32", _dense("float32", "float32", "float32")
    yield "FULLY_CONNECTED no bias", _dense("float32", "float32", "")
    yield "FULLY_CONNECTED int8", _dense("int8", "int8", "int32")
    yield "FULLY_CONNECTED per channel", _dense("int8", "int8", "int32", channels=7)
    yield "FULLY_CONNECTED int16", _dense("int16", "int8", "int64")
    yield "FULLY_CONNECTED int4", _dense("int8", "int4", "int32")
    for dtype in ("float32", "int8"):
        yield f"SVDF {dtype}", _svdf(dtype)
        yield f"UNIDIRECTIONAL_SEQUENCE_LSTM {dtype}", _lstm(dtype, time_major=False)
    yield "UNIDIRECTIONAL_SEQUENCE_LSTM time", _lstm("float32", time_major=True)
    for dtype in ("float32", "int8", "int16"):
        for adj_x, adj_y in ((False, False), (True, False), (False, True)):
            name = f"BATCH_MATMUL {dtype} {int(adj_x)}{int(adj_y)}"
            yield name, _batch_matmul(dtype, adj_x, adj_y)
    yield "BATCH_MATMUL constant", _batch_matmul("float32", False, False, constant=True)


def _svdf(dtype: str) -> Maker:
    def make() -> bytes:
        graph = Graph()
        x = graph.tensor((2, 6), dtype)
        time, state, bias = ("float32",) * 3 if dtype == "float32" else ("int16", "int16", "int32")
        inputs = [
            x,
            graph.weights((8, 6), dtype, **_one(dtype)),
            graph.weights((8, 3), time, **_one(time)),
            graph.weights((4,), bias, **({} if bias == "float32" else _scale(0.25, 0))),
            graph.tensor((2, 24), state, variable=True),
        ]
        output = graph.tensor((2, 4), dtype)
        graph.op("SVDF", inputs, [output], {0: 2, 1: 0})
        return graph.model([x], [output])

    return make


def _lstm(dtype: str, *, time_major: bool) -> Maker:
    """Two samples of five steps of three values, four units."""

    def make() -> bytes:
        graph = Graph()
        x = graph.tensor((5, 2, 3) if time_major else (2, 5, 3), dtype)
        cell, bias = ("float32", "float32") if dtype == "float32" else ("int16", "int32")
        more = _one(dtype)
        inputs = [x]
        inputs += [graph.weights((4, 3), dtype, **more) for _ in range(4)]
        inputs += [graph.weights((4, 4), dtype, **more) for _ in range(4)]
        inputs += [-1] * 3
        inputs += [graph.weights((4,), bias) for _ in range(4)]
        inputs += [-1] * 2
        inputs.append(graph.tensor((2, 4), dtype, variable=True))
        cells = {} if cell == "float32" else _scale(2**-11, 0)
        inputs.append(graph.tensor((2, 4), cell, variable=True, **cells))
        inputs += [-1] * 4
        output = graph.tensor((5, 2, 4) if time_major else (2, 5, 4), dtype)
        between = [graph.tensor((0,), "float32") for _ in range(5)]
        options: dict[int, OptionValue] = {0: 4, 1: 10.0, 3: time_major}
        graph.op("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [output], options, intermediates=between)
        return graph.model([x], [output])

    return make


def _batch_matmul(dtype: str, adj_x: bool, adj_y: bool, *, constant: bool = False) -> Maker:
    def make() -> bytes:
        graph = Graph()
        left = graph.tensor((2, 5, 3) if adj_x else (2, 3, 5), dtype)
        shape = (2, 4, 5) if adj_y else (2, 5, 4)
        right = graph.weights(shape) if constant else graph.tensor(shape, dtype)
        output = graph.tensor((2, 3, 4), dtype)
        graph.op("BATCH_MATMUL", [left, right], [output], {0: adj_x, 1: adj_y, 2: False})
        return graph.model([left] if constant else [left, right], [output])

    return make


def layer_cases() -> dict[str, Maker]:
    """Models of one element-wise operator or one layer each, by a name that begins with the
    operator's."""
    return dict([*_elementwise(), *_layers()])


__all__ = ["Graph", "Maker", "layer_cases"]
