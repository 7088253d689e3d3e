"""The same tests on Keras's other backends, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RELEVANT = "not imported"
"""What a process imports does not depend on the test process that asks."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["jax", "torch"])
def test_on_another_backend(name: str) -> None:
    if importlib.util.find_spec(name) is None or importlib.util.find_spec("keras") is None:
        pytest.skip(f"{name} is not installed")
    names = ("forms", "recurrent", "depth", "export", "eager", "conformance", "axes", "threads")
    modules = [str(HERE / f"test_{module}.py") for module in names]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "-k", RELEVANT, *modules],
        env={**os.environ, "KERAS_BACKEND": name},
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout[-4000:]
