"""The .tflite files that are measured: those of the folder that the environment variable
``LAYERTAP_MODELS`` names, else of ``shared/models`` beside the repository, else one that ships with
layertap.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from layertap.demo import asset

VARIABLE = "LAYERTAP_MODELS"
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "models"


def folder() -> Path:
    return Path(os.environ.get(VARIABLE, BESIDE))


def tflite_file(name: str) -> Path | None:
    """The file of that name, anywhere in the folder; None, and a line that says so, without it."""
    found = next(iter(sorted(folder().glob(f"**/{name}.tflite"))), None)
    if found is None:
        where = f"{folder()} has no such file; {VARIABLE} names the folder"
        print(f"{name}.tflite is left out: {where}", file=sys.stderr)
    return found


def tflite_files() -> list[Path]:
    """All files, or the digits of the demonstration."""
    return sorted(folder().glob("*/*.tflite")) or [asset("digits_int8.tflite")]
