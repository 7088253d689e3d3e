"""Ctrl-C on a long capture leaves a run that --resume completes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import layertap

INPUTS = """
import time
import numpy as np
def batches(pause):
    for i in range(60):
        time.sleep(pause)
        yield np.full((2, 8, 8, 1), i / 60, np.float32)
def slow():
    return batches(0.05)
def quick():
    return batches(0)
"""


def _start(folder: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "layertap.cli", *args],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("runtime", ["tflm", "litert"])
def test_interrupt_and_resume(tmp_path, int8_model, runtime):
    (tmp_path / "slow_inputs.py").write_text(INPUTS)
    capture = ("capture", str(int8_model), "-t", "pool", "--runtime", runtime)
    process = _start(tmp_path, *capture, "-i", "slow_inputs:slow", "-o", "run.zarr")
    deadline = time.monotonic() + 20
    while not (tmp_path / "run.zarr").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.4)
    # As a terminal does: to every process of the group, native workers included.
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert out == ""
    run = layertap.load(tmp_path / "run.zarr")
    assert not run.complete
    assert 0 < run.samples < 120
    assert f"interrupted: {run.samples} samples are in run.zarr" in err
    command = shlex.split(err.split("go on with: layertap ")[1])
    assert command[-1] == "--resume"
    resumed = _start(tmp_path, *command)
    _, err = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, err
    whole = _start(tmp_path, *capture, "-i", "slow_inputs:quick", "-o", "whole.zarr")
    assert whole.wait(60) == 0
    whole.communicate()
    a, b = layertap.load(tmp_path / "run.zarr"), layertap.load(tmp_path / "whole.zarr")
    assert a.complete
    np.testing.assert_array_equal(a["pool"].raw, b["pool"].raw)
