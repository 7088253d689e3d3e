"""Results in the bytes of their operands: where it is allowed, and that the kernels bear it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from tflite_micro import runtime

from layertap.arena.buffers import Buffer, aligned
from layertap.arena.inplace import Place, places
from layertap.arena.lifetimes import lifetimes
from layertap.core.dtypes import numpy_dtype
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import TfliteModel, parse
from layertap.tflite.relayout import with_layout

SHAPE = (2, 3, 5, 4)
SAME, VALID = 0, 1


def found(data: bytes, *, overlapping: bool = False) -> list[Place]:
    """The places of a model in which every tensor without data is in the arena."""
    model = parse(data)
    alive = lifetimes(model)
    positions, buffers = {}, []
    for graph, times in zip(model.subgraphs, alive.tensors, strict=True):
        for tensor, time in zip(graph.tensors, times, strict=True):
            if not tensor.data and not tensor.variable:
                positions[graph.index, tensor.index] = len(buffers)
                dtype = numpy_dtype(tensor.dtype)
                size = math.prod(tensor.shape) * (8 if dtype is None else dtype.itemsize)
                buffers.append(Buffer(aligned(size), *time))
    return places(model, alive.steps, positions, buffers, overlapping=overlapping)


def graph(
    *operators: OperatorSpec,
    inputs: Sequence[int] = (0,),
    outputs: Sequence[int] = (2,),
    dtypes: Sequence[str] = ("float32",) * 4,
    shapes: Sequence[Sequence[int]] = (SHAPE,) * 4,
) -> SubgraphSpec:
    tensors = [
        TensorSpec(f"t{i}", shape, dtype)
        for i, (dtype, shape) in enumerate(zip(dtypes, shapes, strict=True))
    ]
    return SubgraphSpec(tensors, list(inputs), list(outputs), list(operators))


def pairs(*subgraphs: SubgraphSpec, overlapping: bool = False) -> list[tuple[int, int, int]]:
    places = found(write_tflite(*subgraphs), overlapping=overlapping)
    return [(place.subgraph, place.input, place.output) for place in places]


RELU = OperatorSpec("RELU", [0], [1])
NEG = OperatorSpec("NEG", [1], [2])


def test_a_chain_may_stay_in_one_place() -> None:
    assert pairs(graph(RELU, NEG)) == [(0, 0, 1), (0, 1, 2)]


def test_what_is_read_later_stays() -> None:
    assert pairs(graph(RELU, OperatorSpec("ADD", [0, 1], [2]))) == [(0, 0, 2), (0, 1, 2)]


def test_what_the_model_returns_stays() -> None:
    """Also if nothing but the end of the model reads it after the operator."""
    assert pairs(graph(RELU, NEG, outputs=[1, 2])) == [(0, 0, 1)]
    assert pairs(graph(RELU, NEG, outputs=[2, 0])) == [(0, 1, 2)]


def test_variables_and_weights_stay() -> None:
    tensors = [TensorSpec("x", SHAPE), TensorSpec("v", SHAPE, variable=True)]
    tensors += [TensorSpec("w", SHAPE, data=np.ones(SHAPE, np.float32)), TensorSpec("y", SHAPE)]
    for operand in (1, 2):
        operator = OperatorSpec("ADD", [0, operand], [3])
        assert pairs(SubgraphSpec(tensors, [0], [3], [operator])) == [(0, 0, 3)]


def test_an_operator_that_is_not_in_the_table() -> None:
    assert pairs(graph(OperatorSpec("TRANSPOSE", [0], [2]))) == []
    assert pairs(graph(OperatorSpec("my_op", [0], [2]))) == []


def test_more_than_one_result() -> None:
    assert pairs(graph(OperatorSpec("RELU", [0], [1, 2]))) == []


def test_only_the_operand_of_full_size_is_written_over() -> None:
    shapes = (SHAPE, (4,), SHAPE, SHAPE)
    add = OperatorSpec("ADD", [1, 0], [2])
    assert pairs(graph(add, inputs=[0, 1], shapes=shapes)) == [(0, 0, 2)]
    shapes = ((2, 1, 5, 4), (2, 3, 1, 4), SHAPE, SHAPE)
    assert pairs(graph(add, inputs=[0, 1], shapes=shapes)) == []


@pytest.mark.parametrize(
    ("operand", "result", "in_place", "overlapping"),
    [
        ("int8", "int8", True, True),
        ("float32", "int8", True, True),
        ("int16", "int8", True, True),
        ("int8", "float32", False, True),
        # Compilers may take for granted that these two are never at one place.
        ("float32", "int16", False, False),
        ("int32", "float32", False, False),
        ("float32", "bool", False, False),
        ("int4", "int4", False, False),
    ],
)
def test_types(operand: str, result: str, in_place: bool, overlapping: bool) -> None:
    model = graph(OperatorSpec("CAST", [0], [2]), dtypes=[operand, "int8", result, "int8"])
    assert bool(pairs(model)) is in_place
    assert bool(pairs(model, overlapping=True)) is overlapping


def test_a_result_that_grows_starts_below_its_operand() -> None:
    model = graph(OperatorSpec("DEQUANTIZE", [0], [2]), dtypes=["int8", "int8", "float32", "int8"])
    (place,) = found(write_tflite(model), overlapping=True)
    assert (place.reuse.same, place.reuse.distance) == (False, 3 * (math.prod(SHAPE) - 1))


def test_memcpy_does_not_overlap_in_part() -> None:
    model = write_tflite(graph(OperatorSpec("RESHAPE", [0], [2])))
    (place,) = found(model, overlapping=True)
    assert (place.reuse.same, place.reuse.distance) == (True, None)


def test_subgraphs_that_run_once_and_those_that_run_more_often() -> None:
    body = graph(RELU, NEG)
    calls = OperatorSpec("CALL_ONCE", [], [], {0: 1})
    one = graph(calls, RELU, NEG)
    two = graph(calls, calls, RELU, NEG)
    assert [pair for pair in pairs(one, body) if pair[0] == 1] == [(1, 0, 1), (1, 1, 2)]
    assert [pair for pair in pairs(two, body) if pair[0] == 1] == []
    assert [pair for pair in pairs(two, body) if pair[0] == 0] == [(0, 0, 1), (0, 1, 2)]


# What follows runs: one operator per model, with its result in each place that the table allows.

FLOAT = """
    ABS CEIL COS ELU EXP FLOOR HARD_SWISH LEAKY_RELU LOG LOGISTIC NEG RELU RELU6 ROUND RSQRT SIN
    SQRT SQUARE TANH ZEROS_LIKE SOFTMAX LOG_SOFTMAX RESHAPE
"""
INT8 = "ABS ELU HARD_SWISH LEAKY_RELU LOGISTIC RELU RELU6 SOFTMAX TANH QUANTIZE RESHAPE"
INT16 = "LOGISTIC RELU TANH QUANTIZE LEAKY_RELU"
PAIRS = "ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE"
COMPARISONS = "EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL"

# Scales and zero points that a kernel insists on.
RESULTS = {
    ("SOFTMAX", "int8"): (1 / 256, -128),
    ("LOGISTIC", "int8"): (1 / 256, -128),
    ("TANH", "int8"): (1 / 128, 0),
    ("LOGISTIC", "int16"): (1 / 32768, 0),
    ("TANH", "int16"): (1 / 32768, 0),
}


def quantized(name: str, shape: Sequence[int], dtype: str, op: str = "") -> TensorSpec:
    if dtype not in ("int8", "int16"):
        return TensorSpec(name, shape, dtype)
    scale, zero = RESULTS.get((op, dtype), (1 / 32 if dtype == "int8" else 1 / 4096, 0))
    return TensorSpec(name, shape, dtype, scales=[scale], zero_points=[zero])


def unary(op: str, dtype: str, result: str | None = None) -> bytes:
    tensors = [quantized("x", SHAPE, dtype), quantized("y", SHAPE, result or dtype, op)]
    beta = {0: int(np.float32(1).view(np.int32))} if op == "SOFTMAX" else {}
    return write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec(op, [0], [1], beta)]))


def several(op: str, dtypes: Sequence[str], shapes: Sequence[Sequence[int]]) -> bytes:
    """Operands of these types and shapes, and at last the result."""
    tensors = [
        quantized(f"t{i}", shape, dtype)
        for i, (dtype, shape) in enumerate(zip(dtypes, shapes, strict=True))
    ]
    last = len(tensors) - 1
    operands = list(range(last))
    return write_tflite(
        SubgraphSpec(tensors, operands, [last], [OperatorSpec(op, operands, [last])])
    )


def expand_dims() -> bytes:
    tensors = [TensorSpec("x", SHAPE[1:]), TensorSpec("a", (1,), "int32", np.zeros(1, np.int32))]
    tensors.append(TensorSpec("y", (1, *SHAPE[1:])))
    return write_tflite(SubgraphSpec(tensors, [0], [2], [OperatorSpec("EXPAND_DIMS", [0, 1], [2])]))


def element_wise() -> Iterator[tuple[str, bytes]]:
    for dtype, names in (("float32", FLOAT), ("int8", INT8), ("int16", INT16)):
        for op in names.split():
            yield f"{op} {dtype}", unary(op, dtype)
    yield "LOGICAL_NOT", unary("LOGICAL_NOT", "bool")
    for dtype, result in (("float32", "int8"), ("int16", "int8"), ("int8", "float32")):
        yield f"CAST {dtype} {result}", unary("CAST", dtype, result)
        op = "DEQUANTIZE" if result == "float32" else "QUANTIZE"
        yield f"{op} {dtype} {result}", unary(op, dtype, result)
    yield "EXPAND_DIMS", expand_dims()
    for op, dtype in itertools.product(PAIRS.split(), ("float32", "int8")):
        for other in (SHAPE, (4,), (1,), (2, 1, 5, 1)):
            yield f"{op} {dtype} {other}", several(op, [dtype] * 3, [SHAPE, other, SHAPE])
            yield f"{op} {dtype} {other} first", several(op, [dtype] * 3, [other, SHAPE, SHAPE])
    for op in COMPARISONS.split():
        yield op, several(op, ["int8", "int8", "bool"], [SHAPE, (4,), SHAPE])
    for op in ("LOGICAL_AND", "LOGICAL_OR"):
        yield op, several(op, ["bool"] * 3, [SHAPE] * 3)
    for op in ("FLOOR_DIV", "FLOOR_MOD"):
        yield op, several(op, ["float32"] * 3, [SHAPE, (5, 4), SHAPE])
    yield "PRELU", several("PRELU", ["float32"] * 3, [SHAPE, (4,), SHAPE])
    yield "ADD_N", several("ADD_N", ["float32"] * 5, [SHAPE] * 5)
    yield "SELECT_V2", several("SELECT_V2", ["bool", *["float32"] * 3], [SHAPE] * 4)
    shapes = [(3, 1, 1), SHAPE, (4,), SHAPE]
    yield "SELECT_V2 broadcast", several("SELECT_V2", ["bool", *["float32"] * 3], shapes)


def windows() -> Iterator[tuple[str, bytes]]:
    """Convolutions and pools of many forms, of random weights."""
    forms = itertools.product(((1, 1), (3, 3), (2, 5)), (1, 2), (SAME, VALID), (1, 2), (3, 8))
    for (height, width), stride, padding, dilation, channels in forms:
        window = (height, width, stride, padding, dilation)
        yield f"CONV_2D {window} {channels}", window_model("CONV_2D", window, channels)
        yield f"DEPTHWISE {window}", window_model("DEPTHWISE_CONV_2D", window, 4 * (channels // 3))
        if dilation == 1:
            for op in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
                yield f"{op} {window}", window_model(op, window, 4)
                yield f"{op} {window} int8", window_model(op, window, 4, "int8")


def window_model(
    op: str, window: tuple[int, int, int, int, int], channels: int, dtype: str = "float32"
) -> bytes:
    height, width, stride, padding, dilation = window
    operand = (2, 11, 12, 4)
    sizes = []
    for size, filter_size in zip(operand[1:3], (height, width), strict=True):
        reach = 0 if padding == SAME else (filter_size - 1) * dilation
        sizes.append(-(-(size - reach) // stride))
    result = quantized("y", (2, *sizes, channels), dtype)
    x = quantized("x", operand, dtype)
    rng = np.random.default_rng(1)
    options = {0: padding, 1: stride, 2: stride}
    if "POOL" in op:
        return write_tflite(
            SubgraphSpec(
                [x, result],
                [0],
                [1],
                [OperatorSpec(op, [0], [1], {**options, 3: width, 4: height})],
            )
        )
    conv = op == "CONV_2D"
    form = (channels, height, width, 4) if conv else (1, height, width, channels)
    weights = TensorSpec("w", form, data=rng.normal(size=form).astype(np.float32))
    bias = TensorSpec("b", (channels,), data=rng.normal(size=channels).astype(np.float32))
    options |= {4: dilation, 5: dilation} if conv else {3: channels // 4, 5: dilation, 6: dilation}
    operator = OperatorSpec(op, [0, 2, 3], [1], options)
    return write_tflite(SubgraphSpec([x, result, weights, bias], [0], [1], [operator]))


def run(data: bytes) -> bytes:
    """The output in the micro interpreter for inputs that are random, but the same each time."""
    model = parse(data).subgraphs[0]
    interpreter = runtime.Interpreter.from_bytes(data, arena_size=1 << 20)
    rng = np.random.default_rng(7)
    for position, i in enumerate(model.inputs):
        dtype, shape = numpy_dtype(model.tensors[i].dtype), model.tensors[i].shape
        assert dtype is not None
        # No zeros, which FLOOR_DIV refuses.
        values = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
        values *= 1 if dtype.kind == "f" else 60
        interpreter.set_input((values > 0 if dtype.kind == "b" else values).astype(dtype), position)
    interpreter.invoke()
    value: bytes = interpreter.get_output(0).tobytes()
    return value


def layouts(model: TfliteModel, place: Place) -> Iterator[list[int | None]]:
    """The layouts that ``place`` allows: at one byte, and as near as can be from below."""
    graph = model.subgraphs[0]
    reuse = place.reuse
    distances = [0] if reuse.same else []
    distances += [] if reuse.distance is None else [aligned(reuse.distance)]
    top = 1 << 14
    for distance in distances:
        offsets: list[int | None] = [None] * len(graph.tensors)
        for number, i in enumerate(graph.inputs):
            offsets[i] = top + (number << 14)
        offsets[place.output] = 0
        offsets[place.input] = distance
        yield offsets


@pytest.mark.slow
@pytest.mark.parametrize("make", [element_wise, windows])
def test_every_kernel_of_the_table_bears_what_it_is_said_to_bear(make) -> None:
    exercised = set()
    for name, data in make():
        expected = run(data)
        model = parse(data)
        for place in found(data, overlapping=True):
            for offsets in layouts(model, place):
                assert run(with_layout(data, offsets)) == expected, (name, offsets)
                exercised.add(name)
    assert exercised == {name for name, _ in make()}


@pytest.mark.slow
def test_a_window_that_starts_too_near_is_seen() -> None:
    """The proof above would notice: a result over an operand that is still read."""
    data = window_model("CONV_2D", (3, 3, 1, SAME, 1), 8)
    (place,) = found(data, overlapping=True)
    assert place.reuse.distance is not None
    near = aligned(place.reuse.distance) - 512
    assert run(with_layout(data, [near, 0, None, None])) != run(data)
