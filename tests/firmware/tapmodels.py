"""Small models for what runs on real TensorFlow Lite Micro, and what NumPy makes of them."""

from __future__ import annotations

import numpy as np

from layertap.core.dtypes import Array
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite

WIDTH = 8


def chain() -> bytes:
    """x (1, 8) -> RELU -> y -> the custom operator "Choosy" -> z."""
    tensors = [TensorSpec(name, (1, WIDTH)) for name in "xyz"]
    operators = [OperatorSpec("RELU", [0], [1]), OperatorSpec("Choosy", [1], [2])]
    return write_tflite(SubgraphSpec(tensors, [0], [2], operators))


def loops() -> bytes:
    """``x`` is doubled ``steps`` times (WHILE: condition s1, body s2); then IF more than one was
    asked for, it is added to itself (s3), else cut at zero (s4)."""
    main = SubgraphSpec(
        [
            *_state("", "steps", "x"),
            *_state("", "left", "grown"),
            _number("one", 1),
            TensorSpec("many", (1,), "bool"),
            TensorSpec("either", (1, WIDTH)),
        ],
        [0, 1],
        [3, 6],
        [
            OperatorSpec("WHILE", [0, 1], [2, 3], {0: 1, 1: 2}),
            OperatorSpec("LESS", [4, 0], [5]),
            OperatorSpec("IF", [5, 1], [6], {0: 3, 1: 4}),
        ],
    )
    condition = SubgraphSpec(
        [*_state("while/", "steps", "x"), _number("zero", 0), TensorSpec("more", (1,), "bool")],
        [0, 1],
        [3],
        [OperatorSpec("LESS", [2, 0], [3])],
    )
    body = SubgraphSpec(
        [*_state("body/", "steps", "x"), _number("minus", -1), *_state("body/", "left", "doubled")],
        [0, 1],
        [3, 4],
        [OperatorSpec("ADD", [0, 2], [3]), OperatorSpec("ADD", [1, 1], [4])],
    )
    return write_tflite(main, condition, body, _branch("ADD"), _branch("RELU"))


def loop_values(x: Array, steps: int) -> dict[str, list[Array]]:
    """Every tensor of the subgraphs of :func:`loops`, by tap name, once per run of its subgraph."""
    runs: dict[str, list[Array]] = {}

    def seen(name: str, value: Array | int | bool, dtype: type = np.int32) -> None:
        runs.setdefault(name, []).append(
            value if isinstance(value, np.ndarray) else _one(value, dtype)
        )

    branch = "s3" if steps > 1 else "s4"
    seen(f"{branch}/x", x)
    seen(f"{branch}/y", x + x if steps > 1 else np.maximum(x, 0))
    for left in range(steps, -1, -1):
        seen("s1/while/steps", left)
        seen("s1/while/x", x)
        seen("s1/more", left > 0, np.bool_)
        if left > 0:
            seen("s2/body/steps", left)
            seen("s2/body/x", x)
            x = x + x
            seen("s2/body/left", left - 1)
            seen("s2/body/doubled", x)
    return runs


def counter() -> bytes:
    """``total`` is the sum of all ``x`` so far, kept in a resource variable that CALL_ONCE (s1)
    sets to 10."""
    handle = TensorSpec("handle", (), "resource")
    main = SubgraphSpec(
        [TensorSpec("x", (1,)), handle, TensorSpec("before", (1,)), TensorSpec("total", (1,))],
        [0],
        [3],
        [
            OperatorSpec("CALL_ONCE", [], [], {0: 1}),
            OperatorSpec("VAR_HANDLE", [], [1], {0: "", 1: "count"}),
            OperatorSpec("READ_VARIABLE", [1], [2]),
            OperatorSpec("ADD", [2, 0], [3]),
            OperatorSpec("ASSIGN_VARIABLE", [1, 3], []),
        ],
    )
    ten = TensorSpec("ten", (1,), data=np.full(1, 10, np.float32))
    first = SubgraphSpec(
        [handle, ten],
        [],
        [],
        [
            OperatorSpec("VAR_HANDLE", [], [0], {0: "", 1: "count"}),
            OperatorSpec("ASSIGN_VARIABLE", [0, 1], []),
        ],
    )
    return write_tflite(main, first)


def _state(prefix: str, number: str, vector: str) -> tuple[TensorSpec, TensorSpec]:
    return TensorSpec(prefix + number, (1,), "int32"), TensorSpec(prefix + vector, (1, WIDTH))


def _number(name: str, value: int) -> TensorSpec:
    return TensorSpec(name, (1,), "int32", data=np.array([value], np.int32))


def _branch(op: str) -> SubgraphSpec:
    tensors = [TensorSpec("x", (1, WIDTH)), TensorSpec("y", (1, WIDTH))]
    return SubgraphSpec(tensors, [0], [1], [OperatorSpec(op, [0] if op == "RELU" else [0, 0], [1])])


def _one(value: int | bool, dtype: type) -> Array:
    return np.array([value], dtype)


__all__ = ["WIDTH", "chain", "counter", "loop_values", "loops"]
