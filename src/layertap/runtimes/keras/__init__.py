"""Keras 3 models (TensorFlow, JAX and torch backends), live or from ``.keras`` and ``.h5`` files.

Importing this package imports Keras. Without ``KERAS_BACKEND``, and where the backend that Keras
would take is not installed, the first installed one of TensorFlow, PyTorch and JAX is chosen: see
:func:`layertap.runtimes.keras.backend.choose_backend`.
"""

from layertap.runtimes.keras.backend import choose_backend, quiet_tensorflow

choose_backend()
quiet_tensorflow()

from layertap.runtimes.keras.attach import attach  # noqa: E402
from layertap.runtimes.keras.session import open  # noqa: E402

__all__ = ["attach", "open"]
