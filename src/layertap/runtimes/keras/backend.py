"""Choose Keras's backend before Keras is imported. Imports no framework."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

from layertap.errors import MissingRuntime

BACKENDS = ("tensorflow", "torch", "jax")


def require_keras() -> None:
    """Raise ModuleNotFoundError where Keras is not installed; it is imported only later."""
    if "keras" not in sys.modules and importlib.util.find_spec("keras") is None:
        raise ModuleNotFoundError("No module named 'keras'", name="keras")


def choose_backend() -> None:
    """Make the coming ``import keras`` use a backend that is installed.

    ``KERAS_BACKEND`` and an imported Keras are left as they are. Without them Keras takes the
    backend of ``keras.json``, or TensorFlow, and fails when that is not installed; then the first
    installed one of TensorFlow, PyTorch and JAX is put into ``KERAS_BACKEND`` of this process.

    Raises MissingRuntime when none is installed.
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND"):
        return
    wanted = _configured()
    installed = [name for name in BACKENDS if importlib.util.find_spec(name) is not None]
    if wanted in installed or wanted not in BACKENDS:
        return
    if not installed:
        raise MissingRuntime(
            "the runtime 'keras' needs TensorFlow, PyTorch or JAX, none of which is installed",
            hint="pip install 'layertap[keras]'",
        )
    os.environ["KERAS_BACKEND"] = installed[0]


def quiet_tensorflow() -> None:
    """Keep TensorFlow's start-up notices off stderr unless the user asked for a log level."""
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")


def _configured() -> str:
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return str(json.loads((home / "keras.json").read_text()).get("backend", "tensorflow"))
    except (OSError, ValueError):
        return "tensorflow"
