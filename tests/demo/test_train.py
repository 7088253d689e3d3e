"""The script that makes the demo's files."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from layertap.demo import asset

FILES = ("digits.keras", "digits_float.tflite", "digits_int8.tflite", "digits.npz")


@pytest.mark.slow
def test_training_again_gives_models_as_good_and_the_same_digits(tmp_path):
    command = [sys.executable, "-m", "layertap.demo.train", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("of the held-out digits right") == 3
    with np.load(tmp_path / "digits.npz") as new, np.load(asset("digits.npz")) as old:
        np.testing.assert_array_equal(new["image"], old["image"])
        np.testing.assert_array_equal(new["label"], old["label"])
    again = tmp_path / "again"
    again.mkdir()
    subprocess.run([*command[:-1], str(again)], check=True, capture_output=True, timeout=240)
    for name in FILES:
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes(), name
