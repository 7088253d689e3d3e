"""LiteRT: see :mod:`benchmarks.user_path.tflite`."""

from __future__ import annotations

import warnings
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter
from benchmarks.user_path.goals import Row
from benchmarks.user_path.tflite import ByHand, Work, kept_by, rows_of

from layertap.core.dtypes import Array

WORKS = (
    Work("kws_int8", 10_000),
    Work("resnet_int8", 2_000),
    Work("ad01_int8", 10_000, small=True),
)


def rows() -> list[Row]:
    return rows_of("litert", WORKS, by_hand)


def by_hand(path: Path, indices: list[int]) -> ByHand:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the memory that keeping all tensors takes
        interpreter = Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]["index"]

    def run(sample: Array) -> None:
        interpreter.set_tensor(given, sample)
        interpreter.invoke()

    return lambda samples: kept_by(samples, indices, run, interpreter.get_tensor)
