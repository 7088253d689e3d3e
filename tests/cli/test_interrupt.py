"""Ctrl-C on a long capture leaves a run that --resume completes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time

import numpy as np
import pytest

import layertap

pytestmark = pytest.mark.slow

INPUTS = """
import time
from pathlib import Path
import numpy as np
def batches():
    for i in range(20):
        if i == 10 and not Path("stuck").exists():
            Path("stuck").touch()
            time.sleep(60)
        yield np.full((2, 8, 8, 1), i / 20, np.float32)
"""
"""Gets stuck once, when half of the batches are done."""


@pytest.mark.parametrize("runtime", ["tflm", "litert"])
def test_interrupt_and_resume(tmp_path, int8_model, start, runtime):
    (tmp_path / "slow_inputs.py").write_text(INPUTS)
    capture = ("capture", str(int8_model), "-t", "pool", "--runtime", runtime)
    process = start(*capture, "-i", "slow_inputs:batches", "-o", "run.zarr")
    deadline = time.monotonic() + 60
    while not (tmp_path / "stuck").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    # As a terminal does: to every process of the group, native workers included.
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    run = layertap.load(tmp_path / "run.zarr")
    assert not run.complete
    assert run.samples == 20
    assert "interrupted: 20 samples in run.zarr, which is valid" in err
    command = shlex.split(err.split(" -m layertap ")[1])
    assert command[-1] == "--resume"
    resumed = start(*command)
    _, err = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, err
    whole = layertap.load(tmp_path / "run.zarr")
    assert whole.complete
    x = np.repeat(np.arange(20) / 20, 2).astype(np.float32)
    with layertap.open(int8_model, runtime) as model:
        wanted = model.capture(np.broadcast_to(x[:, None, None, None], (40, 8, 8, 1)), "pool")
    np.testing.assert_array_equal(whole["pool"].raw, wanted["pool"].raw)


def test_an_early_interrupt_leaves_nothing_to_resume(tmp_path, int8_model, start):
    (tmp_path / "hanging.py").write_text(
        "import time\nfrom pathlib import Path\nPath('stuck').touch()\ntime.sleep(60)\n"
    )
    args = ("capture", str(int8_model), "-i", "hanging:batches", "-o", "run.zarr", "--json")
    process = start(*args)
    deadline = time.monotonic() + 60
    while not (tmp_path / "stuck").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["error"] == "Interrupted"
    assert not (tmp_path / "run.zarr").exists()
