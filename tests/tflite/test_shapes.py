"""Sizes that a file leaves open: refused where LiteRT, which infers them, finds others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import layertap
from layertap.errors import SourceError
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import parse
from layertap.tflite.shapes import check_open_shapes

SAME, VALID = 0, 1
DILATED = {0: VALID, 1: 1, 2: 1, 4: 2, 5: 2}
POOL = {0: SAME, 1: 2, 2: 2, 3: 2, 4: 2}


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


Case = tuple[str, Sequence[Any], Mapping[int, Any], int]
"""An operator, its operands (a shape for one of the model's inputs, an array for a constant), its
options and the number of its results."""

CASES: dict[str, Case] = {
    "pixels into the batch": (
        "SPACE_TO_BATCH_ND", [(1, 4, 4, 2), ints(2, 2), ints([1, 1], [0, 2])], {}, 1
    ),
    "and back": ("BATCH_TO_SPACE_ND", [(4, 3, 3, 2), ints(2, 2), ints([1, 1], [0, 2])], {}, 1),
    "without padding": ("SPACE_TO_BATCH_ND", [(1, 4, 3), ints(4), ints([0, 0])], {}, 1),
    "dilated": ("CONV_2D", [(1, 7, 9, 2), ones(3, 3, 3, 2), ones(3)], DILATED, 1),
    "strided": (
        "DEPTHWISE_CONV_2D",
        [(1, 8, 9, 2), ones(1, 3, 2, 4), ones(4)],
        {0: SAME, 1: 2, 2: 3, 3: 2, 5: 1, 6: 1},
        1,
    ),
    "pooled": ("MAX_POOL_2D", [(1, 5, 6, 2)], POOL, 1),
    "joined along the batch": ("CONCATENATION", [(1, 3), (1, 3)], {0: 0}, 1),
    "joined": ("CONCATENATION", [(1, 3), (1, 4)], {0: 1}, 1),
    "stacked": ("PACK", [(1, 3), (1, 3)], {0: 2, 1: 0}, 1),
    "unstacked": ("UNPACK", [(1, 3)], {0: 3, 1: 1}, 3),
    "split": ("SPLIT", [ints(1), (1, 4)], {0: 2}, 2),
    "split in parts": ("SPLIT_V", [(1, 4), ints(1, 3), ints(1)], {0: 2}, 2),
    "padded": ("PAD", [(1, 3), ints([1, 0], [0, 2])], {}, 1),
    "mean": ("MEAN", [(1, 3, 5), ints(1, -1)], {}, 1),
    "largest": ("ARG_MAX", [(1, 3, 5), ints(1)], {0: 2}, 1),
    "rows": ("RESHAPE", [(1, 3, 5), ints(-1, 5)], {}, 1),
    "turned": ("TRANSPOSE", [(1, 3), ints(1, 0)], {}, 1),
    "dense": ("FULLY_CONNECTED", [(1, 6), ones(4, 3)], {}, 1),
    "repeated": ("TILE", [(1, 3), ints(2, 1)], {}, 1),
    "enlarged": ("RESIZE_NEAREST_NEIGHBOR", [(1, 2, 2, 3), ints(4, 6)], {}, 1),
    "cut": ("SLICE", [(1, 5), ints(0, 1), ints(-1, 3)], {}, 1),
    "sum": ("ADD", [(1, 1, 3), (1, 4, 1)], {}, 1),
    "one by one": ("RELU", [(1, 4)], {}, 1),
}  # fmt: skip


def model(case: Case, result: Sequence[int]) -> bytes:
    """One operator; each of its results has this shape in the file, with an open batch."""
    name, operands, options, results = case
    tensors = []
    for i, operand in enumerate(operands):
        if isinstance(operand, np.ndarray):
            tensors.append(TensorSpec(f"c{i}", operand.shape, operand.dtype.name, operand))
        else:
            tensors.append(TensorSpec(f"x{i}", operand, signature=(-1, *operand[1:])))
    given = [i for i, tensor in enumerate(tensors) if tensor.data is None]
    made = list(range(len(tensors), len(tensors) + results))
    dtype = "int32" if name == "ARG_MAX" else "float32"
    tensors += [
        TensorSpec(f"y{i}", result, dtype, signature=(-1, *result[1:])) for i in range(results)
    ]
    op = OperatorSpec(name, range(len(operands)), made, options)
    return write_tflite(SubgraphSpec(tensors, given, made, [op]))


def computed(data: bytes) -> list[tuple[int, ...]]:
    """The shapes of the results as LiteRT infers them, whatever the file says."""
    interpreter = Interpreter(
        model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    return [interpreter.get_tensor(one["index"]).shape for one in outputs]


@pytest.mark.parametrize("name", CASES)
def test_shapes_are_those_that_litert_infers(name: str) -> None:
    case = CASES[name]
    shapes = computed(model(case, (1, 1, 1, 1)))
    elements = sum(map(math.prod, shapes))
    for result in (shapes[0], (1, *shapes[0][1:]), (2, 3, 5, 7)):
        tested = parse(model(case, result))
        if math.prod(result) * len(shapes) == elements:
            check_open_shapes(tested)
            continue
        with pytest.raises(SourceError, match=r"'y0'.*leaves its shape open") as caught:
            check_open_shapes(tested)
        assert f"gives {elements:,} elements" in caught.value.message
        assert "batch_size=1" in caught.value.hint


def test_a_shape_that_is_not_open_is_the_authors_own() -> None:
    tensors = [TensorSpec("x", (1, 4)), TensorSpec("y", (1, 3))]
    data = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("RESHAPE", [0], [1])]))
    check_open_shapes(parse(data))


def test_blocks_that_are_computed_are_known_to_nobody() -> None:
    tensors = [
        TensorSpec("x", (1, 4, 3), signature=(-1, 4, 3)),
        TensorSpec("blocks", (1,), "int32"),
        TensorSpec("around", (1, 2), "int32"),
        TensorSpec("y", (1, 4, 3), signature=(-1, -1, 3)),
    ]
    op = OperatorSpec("SPACE_TO_BATCH_ND", [0, 1, 2], [3])
    data = write_tflite(SubgraphSpec(tensors, [0, 1, 2], [3], [op]))
    with pytest.raises(SourceError, match="as many as nobody knows before"):
        check_open_shapes(parse(data))


@pytest.mark.parametrize("operator", ["SPACE_TO_BATCH_ND", "CONV_2D", "MEAN", "FULLY_CONNECTED"])
def test_operands_that_are_missing_are_no_shape(operator: str) -> None:
    tensors = [TensorSpec("x", (1, 4), signature=(-1, 4)), TensorSpec("y", (1,), signature=(-1,))]
    data = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec(operator, [0], [1])]))
    if operator == "SPACE_TO_BATCH_ND":
        with pytest.raises(SourceError):
            check_open_shapes(parse(data))
    else:
        check_open_shapes(parse(data))


def dilated(layer: Callable[[Any], Any], shape: tuple[int, ...], batch: int | None) -> bytes:
    """A layer of Keras as TensorFlow's converter writes it."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    x = keras.Input(shape, batch_size=batch)
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(x, layer(x)))
    data: bytes = converter.convert()
    return data


def run(interpreter: Any, x: np.ndarray, *, micro: bool) -> np.ndarray:
    if micro:
        interpreter.set_input(x, 0)
        interpreter.invoke()
        return np.array(interpreter.get_output(0))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["2d", "depthwise", "1d"])
def test_dilated_convolutions_of_an_open_batch_are_refused(kind: str, tmp_path: Path) -> None:
    from keras import layers
    from tflite_micro import runtime

    layer, shape = {
        "2d": (layers.Conv2D(4, 3, dilation_rate=2, padding="same"), (16, 16, 3)),
        "depthwise": (layers.DepthwiseConv2D(3, dilation_rate=2, padding="same"), (16, 16, 3)),
        "1d": (layers.Conv1D(4, 3, dilation_rate=4, padding="causal"), (32, 3)),
    }[kind]
    folders = iter(("refused", "made"))

    def to_firmware(data: bytes) -> object:
        return layertap.generate_firmware(data, tmp_path / next(folders))

    x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    for batch in (None, 1):
        data = dilated(layer, shape, batch)
        right = run(Interpreter(model_content=data), x, micro=False)
        micro = run(runtime.Interpreter.from_bytes(data), x, micro=True)
        # What the interpreter computes says whether it is right to refuse.
        assert np.allclose(micro, right, atol=1e-5) == (batch == 1)
        for attempt in (layertap.memory, layertap.prices, layertap.optimize, to_firmware):
            if batch == 1:
                attempt(data)
            else:
                with pytest.raises(SourceError, match="leaves its shape open"):
                    attempt(data)
    assert len(list(tmp_path.iterdir())) == 1  # nothing is written of what is refused
