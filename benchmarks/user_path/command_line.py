"""The command line, from start to exit, beside the start of a Python that imports what it needs."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.models import tflite_file
from benchmarks.user_path.goals import Call, Goal, Row, compared

from layertap.demo import asset

LAYERTAP = str(Path(sys.executable).with_name("layertap"))
CLICK = "python -c 'import click'"
THREE = "python -c 'import numpy, click, rich'"
SCRIPT = """
import sys, numpy as np
from ai_edge_litert.interpreter import Interpreter
model = Interpreter(sys.argv[1], experimental_preserve_all_tensors=True)
model.allocate_tensors()
given = model.get_input_details()[0]
x = np.random.default_rng(0).integers(-128, 128, given["shape"]).astype(given["dtype"])
model.set_tensor(given["index"], x)
model.invoke()
for detail in model.get_tensor_details():
    try:
        value = model.get_tensor(detail["index"])
    except ValueError:
        continue
    print(detail["name"], value.shape, value.min(), value.max(), value.mean())
"""
"""What one would write to look at the tensors once."""


def ran(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def rows() -> list[Row]:
    path = str(tflite_file("kws_int8") or asset("digits_int8.tflite"))
    python = partial(ran, sys.executable)
    layertap = partial(ran, LAYERTAP)
    works: dict[str, tuple[dict[str, Call], dict[str, Goal]]] = {
        "--help": (
            {CLICK: partial(python, "-c", "import click"), "layertap": partial(layertap, "--help")},
            {"layertap": Goal({CLICK: 1.3})},
        ),
        f"ls {Path(path).name}": (
            {
                THREE: partial(python, "-c", "import numpy, click, rich"),
                "layertap": partial(layertap, "ls", path),
            },
            {"layertap": Goal({THREE: 1.5})},
        ),
        f"capture {Path(path).name} --random 0": (
            {
                "a script by hand": partial(python, "-W", "ignore", "-c", SCRIPT, path),
                "layertap": partial(
                    layertap, "capture", path, "--runtime", "litert", "--random", "0"
                ),
            },
            {},
        ),
    }
    return [
        row
        for name, (contenders, goals) in works.items()
        for row in compared(f"layertap {name}", contenders, goals, budget=6)
    ]
