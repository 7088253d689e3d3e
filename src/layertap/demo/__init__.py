"""A small CNN on handwritten digits, shipped with layertap so that there is something to look at.

``digits.keras``, ``digits_float.tflite`` and ``digits_int8.tflite`` are one training of
:mod:`layertap.demo.train`; ``digits.npz`` holds held-out digits to run them on.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from layertap.core.dtypes import Array


@dataclass(frozen=True, slots=True)
class Digits:
    """Handwritten digits that the models have not seen in training.

    ``image`` is float32 (n, 8, 8, 1) in [0, 1]; ``label`` is int64 (n,), 0 to 9.
    """

    image: Array
    label: Array


def asset(name: str) -> Path:
    """The path of a file that ships with the demo, for instance ``digits_int8.tflite``."""
    with as_file(files(__name__) / name) as path:
        return path


def digits() -> Digits:
    """The held-out digits of ``digits.npz``."""
    with np.load(asset("digits.npz"), allow_pickle=False) as archive:
        return Digits(archive["image"], archive["label"])
