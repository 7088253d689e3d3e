"""TensorFlow Lite Micro: see :mod:`benchmarks.user_path.tflite`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.user_path.goals import Row
from benchmarks.user_path.tflite import ByHand, Work, kept_by, rows_of
from tflite_micro import runtime

from layertap.core.dtypes import Array

ARENA = 1 << 21
WORKS = (
    Work("kws_int8", 100),
    Work("resnet_int8", 50),
    Work("ad01_int8", 10_000),
)


def rows() -> list[Row]:
    return rows_of("tflm", WORKS, by_hand)


def by_hand(path: Path, indices: list[int]) -> ByHand:
    keep = runtime.InterpreterConfig.kPreserveAllTensors
    interpreter = runtime.Interpreter.from_file(
        str(path), arena_size=ARENA, intrepreter_config=keep
    )

    def run(sample: Array) -> None:
        interpreter.set_input(sample, 0)
        interpreter.invoke()

    def get(index: int) -> Array:
        value: Array = interpreter.GetTensor(index, 0)["tensor_data"]
        return value

    return lambda samples: kept_by(samples, indices, run, get)
