"""Models with known values for every runtime of .tflite files.

Inputs and weights are small integers, so that every kernel, in whatever order it adds, gives
the same bits as NumPy. Weights are positive: kernels differ in the sign of a zero that they get
by multiplying.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from layertap.core.dtypes import Array
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite

Random = np.random.Generator


@dataclass(frozen=True)
class KnownModel:
    """``feed`` is one batch; ``oracle`` has every computed tensor by its name; ``outputs`` names
    the model's outputs in order."""

    data: bytes
    feed: Mapping[str, Array]
    oracle: Mapping[str, Array]
    outputs: tuple[str, ...]


@dataclass
class _Builder:
    """A model that grows operator by operator, with the value of each tensor."""

    tensors: list[TensorSpec] = field(default_factory=list)
    operators: list[OperatorSpec] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)

    def tensor(self, name: str, value: Array, **more: Any) -> int:
        self.tensors.append(TensorSpec(name, value.shape, value.dtype.name, **more))
        self.values.append(value)
        return len(self.tensors) - 1

    def constant(self, name: str, value: Array) -> int:
        return self.tensor(name, value, data=value)

    def operator(self, op: str, inputs: list[int], name: str, value: Array, **more: Any) -> int:
        result = self.tensor(name, value, **more)
        self.operators.append(OperatorSpec(op, inputs, [result]))
        return result

    def finish(self, inputs: list[int], outputs: list[int]) -> KnownModel:
        computed = [op.outputs[0] for op in self.operators]
        return KnownModel(
            write_tflite(SubgraphSpec(self.tensors, inputs, outputs, self.operators)),
            {self.tensors[i].name: self.values[i] for i in inputs},
            {self.tensors[i].name: self.values[i] for i in computed},
            tuple(self.tensors[i].name for i in outputs),
        )


def _integers(rng: Random, shape: tuple[int, ...], low: int, high: int) -> Array:
    return rng.integers(low, high + 1, shape).astype(np.float32)


def known_model(batch: int = 2, seed: int = 0) -> KnownModel:
    """A branch, a shared operand, a reshape that could be done in place, two outputs, and a
    quantized part."""
    rng = np.random.default_rng(seed)
    model = _Builder()
    x = model.tensor("x", _integers(rng, (batch, 6), -3, 3))
    weights = _integers(rng, (4, 6), 1, 3)
    dense = model.operator(
        "FULLY_CONNECTED",
        [x, model.constant("weights", weights), -1],
        "dense",
        model.values[x] @ weights.T,
    )
    relu = model.operator("RELU", [dense], "relu", np.maximum(model.values[dense], 0))
    total = model.operator("ADD", [relu, dense], "sum", model.values[relu] + model.values[dense])
    shape = model.constant("shape", np.array([batch, 2, 2], np.int32))
    folded = model.operator(
        "RESHAPE", [total, shape], "folded", model.values[total].reshape(batch, 2, 2)
    )
    doubled = model.operator("ADD", [folded, folded], "doubled", model.values[folded] * 2)
    codes = np.clip(model.values[total] / 0.5 + 3, -128, 127).astype(np.int8)
    quantization = {"scales": [0.5], "zero_points": [3]}
    quantized = model.operator("QUANTIZE", [total], "quantized", codes, **quantization)
    back = ((codes.astype(np.float32) - 3) * 0.5).astype(np.float32)
    restored = model.operator("DEQUANTIZE", [quantized], "restored", back)
    return model.finish([x], [doubled, restored])


def additions(length: int) -> SubgraphSpec:
    """``x``, then ``t0``, ``t1``...: each the one before plus the constant ``w``."""
    tensors = [TensorSpec(name, (1, 2)) for name in ("x", *(f"t{i}" for i in range(length)))]
    tensors.append(TensorSpec("w", (2,), data=np.ones(2, np.float32)))
    operators = [OperatorSpec("ADD", [i, length + 1], [i + 1]) for i in range(length)]
    return SubgraphSpec(tensors, [0], [length], operators)


_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "ADD": np.add,
    "SUB": np.subtract,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
}


@st.composite
def known_models(draw: st.DrawFn) -> KnownModel:
    """Random small graphs: elementwise operators on any two tensors so far, and dense layers."""
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 7)))
    model = _Builder()
    inputs = [
        model.tensor(f"in{i}", _integers(rng, shape, -3, 3)) for i in range(draw(st.integers(1, 2)))
    ]
    live = list(inputs)
    for number in range(draw(st.integers(1, 5))):
        first = draw(st.sampled_from(live))
        same = [i for i in live if model.values[i].shape == model.values[first].shape]
        live.append(_step(draw, model, rng, number, first, draw(st.sampled_from(same))))
    computed = [op.outputs[0] for op in model.operators]
    outputs = draw(st.lists(st.sampled_from(computed), min_size=1, max_size=2, unique=True))
    return model.finish(inputs, outputs)


def _step(
    draw: st.DrawFn, model: _Builder, rng: Random, number: int, first: int, second: int
) -> int:
    op = draw(st.sampled_from([*_BINARY, "RELU", "FULLY_CONNECTED"]))
    x, y = model.values[first], model.values[second]
    name = f"{op.lower()}{number}"
    if op == "RELU":
        return model.operator(op, [first], name, np.maximum(x, 0))
    if op == "FULLY_CONNECTED":
        weights = _integers(rng, (draw(st.integers(1, 7)), x.shape[1]), 1, 2)
        held = model.constant(f"w{number}", weights)
        return model.operator(op, [first, held, -1], name, x @ weights.T)
    return model.operator(op, [first, second], name, _BINARY[op](x, y))


__all__ = ["KnownModel", "additions", "known_model", "known_models"]
