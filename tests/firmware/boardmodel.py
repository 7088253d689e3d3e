"""A model for the test board: every dtype of the wire, odd shapes, a loop, a branch, a state.

``MODEL`` are the bytes of the .tflite, ``FEED`` is one input; ``values(feed, memory)`` computes
with NumPy what the board has to send.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from testboard import DTYPES

from layertap.core.dtypes import Array, numpy_dtype
from layertap.testing.tflite import (
    OperatorSpec,
    OptionValue,
    SubgraphSpec,
    TensorSpec,
    write_tflite,
)

SHAPE = (2, 3, 4)
LARGE = (137, 6, *SHAPE)
"""78,912 bytes of float32."""
MEMORY = 4
"""How many inferences the state goes back."""
FEED: Mapping[str, Array] = {
    "x": (np.arange(24, dtype=np.float32).reshape(SHAPE) - 11) / 2,
    "steps": np.array([3], np.int32),
}


@dataclass
class _Graph:
    """A subgraph that grows operator by operator."""

    tensors: list[TensorSpec] = field(default_factory=list)
    operators: list[OperatorSpec] = field(default_factory=list)

    def tensor(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> int:
        self.tensors.append(TensorSpec(name, shape, dtype))
        return len(self.tensors) - 1

    def constant(self, name: str, value: Array) -> int:
        self.tensors.append(TensorSpec(name, value.shape, value.dtype.name, data=value))
        return len(self.tensors) - 1

    def op(
        self,
        op: str,
        inputs: list[int],
        outputs: list[int],
        options: Mapping[int, OptionValue] | None = None,
    ) -> int:
        self.operators.append(OperatorSpec(op, inputs, outputs, options or {}))
        return outputs[0]


def _int32(*numbers: int) -> Array:
    return np.array(numbers, np.int32)


def _main() -> SubgraphSpec:
    graph = _Graph()
    x, steps = graph.tensor("x", SHAPE), graph.tensor("steps", (1,), "int32")
    for dtype in DTYPES:
        graph.op("CAST", [x], [graph.tensor(f"cast/{dtype}", SHAPE, dtype)])
    _shapes(graph, x, steps)
    row, memory = graph.tensor("row", (1, 24)), graph.tensor("memory", (1, 1))
    graph.op("RESHAPE", [x, graph.constant("row/shape", _int32(1, 24))], [row])
    feature = graph.constant("feature", np.ones((1, 24), np.float32))
    time = graph.constant("time", np.arange(1, MEMORY + 1, dtype=np.float32)[None])
    state = len(graph.tensors)
    graph.tensors.append(TensorSpec("state", (1, MEMORY), variable=True))
    graph.op("SVDF", [row, feature, time, -1, state], [memory], {0: 1})
    left, grown = graph.tensor("left", (1,), "int32"), graph.tensor("grown", SHAPE)
    graph.op("WHILE", [steps, x], [left, grown], {0: 1, 1: 2})
    many, either = graph.tensor("many", (1,), "bool"), graph.tensor("either", SHAPE)
    graph.op("LESS", [graph.constant("one", _int32(1)), steps], [many])
    graph.op("IF", [many, x], [either], {0: 3, 1: 4})
    return SubgraphSpec(graph.tensors, [x, steps], [memory, grown, either], graph.operators)


def _shapes(graph: _Graph, x: int, steps: int) -> None:
    """Tensors of no elements, of no dimensions, of six, of an odd count of half bytes, and one
    that is larger than any frame."""
    for name, op, source, shape in (
        ("large", "BROADCAST_TO", x, LARGE),
        ("empty", "BROADCAST_TO", x, (0, *SHAPE)),
        ("scalar", "RESHAPE", steps, ()),
        ("six", "RESHAPE", x, (1, 2, 1, 3, 2, 2)),
        ("five", "BROADCAST_TO", steps, (5,)),
    ):
        wanted = graph.constant(f"{name}/shape", _int32(*shape)) if shape else None
        result = graph.tensor(name, shape, graph.tensors[source].dtype)
        graph.op(op, [source] if wanted is None else [source, wanted], [result])
    graph.op("CAST", [len(graph.tensors) - 1], [graph.tensor("odd", (5,), "int4")])


def _condition() -> SubgraphSpec:
    graph = _Graph()
    given = [graph.tensor("while/steps", (1,), "int32"), graph.tensor("while/x", SHAPE)]
    more = graph.tensor("while/more", (1,), "bool")
    graph.op("LESS", [graph.constant("zero", _int32(0)), given[0]], [more])
    return SubgraphSpec(graph.tensors, given, [more], graph.operators)


def _body() -> SubgraphSpec:
    graph = _Graph()
    given = [graph.tensor("body/steps", (1,), "int32"), graph.tensor("body/x", SHAPE)]
    left, doubled = graph.tensor("body/left", (1,), "int32"), graph.tensor("body/doubled", SHAPE)
    graph.op("SUB", [given[0], graph.constant("body/one", _int32(1))], [left])
    graph.op("ADD", [given[1], given[1]], [doubled])
    return SubgraphSpec(graph.tensors, given, [left, doubled], graph.operators)


def _branch(name: str, op: str) -> SubgraphSpec:
    graph = _Graph()
    given, result = graph.tensor(f"{name}/x", SHAPE), graph.tensor(f"{name}/y", SHAPE)
    graph.op(op, [given] if op == "RELU" else [given, given], [result])
    return SubgraphSpec(graph.tensors, [given], [result], graph.operators)


MODEL = write_tflite(
    _main(), _condition(), _body(), _branch("then", "ADD"), _branch("else", "RELU")
)


def values(
    feed: Mapping[str, Array], memory: Array | None = None
) -> tuple[dict[str, list[Array]], Array]:
    """Every tensor by its name, one value per run of its subgraph, and the state afterwards.
    ``memory`` is the state before, zeros if None."""
    x, steps = feed["x"], feed["steps"]
    state = np.zeros((1, MEMORY), np.float32) if memory is None else memory
    state = np.append(state[:, 1:], [[x.sum()]], axis=1).astype(np.float32)
    main = {
        **{f"cast/{dtype}": _cast(x, dtype) for dtype in DTYPES},
        **{"x": x, "steps": steps, "row": x.reshape(1, 24), "state": state},
        "large": np.broadcast_to(x, LARGE).copy(),
        "empty": np.zeros((0, *SHAPE), np.float32),
        "scalar": steps.reshape(()),
        "six": x.reshape(1, 2, 1, 3, 2, 2),
        "five": np.repeat(steps, 5),
        "odd": _cast(np.repeat(steps, 5), "int4"),
        "memory": (state * np.arange(1, MEMORY + 1)).sum(keepdims=True).astype(np.float32),
        "many": steps > 1,
    }
    inner = _loop(x, steps) | _chosen(x, bool(steps[0] > 1))
    main["left"], main["grown"] = inner["while/steps"][-1], inner["while/x"][-1]
    main["either"] = (inner["then/y"] or inner["else/y"])[0]
    return {name: [value] for name, value in main.items()} | inner, state


def _loop(x: Array, steps: Array) -> dict[str, list[Array]]:
    runs: dict[str, list[Array]] = {}
    while True:
        seen = {"while/steps": steps, "while/x": x, "while/more": steps > 0}
        if steps[0] > 0:
            seen |= {"body/steps": steps, "body/x": x}
            steps, x = steps - 1, x + x
            seen |= {"body/left": steps, "body/doubled": x}
        for name, value in seen.items():
            runs.setdefault(name, []).append(value)
        if "body/x" not in seen:
            return {name: [] for name in _BODY} | runs


_BODY = ("body/steps", "body/x", "body/left", "body/doubled")


def _chosen(x: Array, first: bool) -> dict[str, list[Array]]:
    runs: dict[str, list[Array]] = {"then/x": [], "then/y": [], "else/x": [], "else/y": []}
    runs["then/x" if first else "else/x"] = [x]
    runs["then/y" if first else "else/y"] = [x + x if first else np.maximum(x, 0)]
    return runs


def _cast(x: Array, name: str) -> Array:
    """Towards zero, into the range of the type."""
    dtype = numpy_dtype(name)
    assert dtype is not None
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(x, limits.min, limits.max).astype(dtype)
    return np.clip(np.trunc(x), -8, 7).astype(dtype) if name == "int4" else x.astype(dtype)


__all__ = ["FEED", "MEMORY", "MODEL", "values"]
