"""Keras 3 models (TensorFlow, JAX and torch backends), live or from ``.keras`` and ``.h5`` files.

Importing this package imports no framework: Keras is imported when a model is opened, after a look
at its file. Without ``KERAS_BACKEND``, and where the backend that Keras would take is not
installed, the first installed one of TensorFlow, PyTorch and JAX is chosen: see
:func:`layertap.runtimes.keras.backend.choose_backend`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from layertap.core.dtypes import Array
from layertap.core.select import Selector
from layertap.errors import SourceError
from layertap.runtimes.keras.backend import choose_backend, quiet_tensorflow, require_keras

if TYPE_CHECKING:
    from layertap.runtimes.keras.session import KerasSession

require_keras()
choose_backend()
quiet_tensorflow()

Depth = Literal["layers", "ops"]
"""How deep to look into a model: what its layers return, or every operation inside of them."""


def open(
    source: Any,
    *,
    allow_code: bool = False,
    custom_objects: Mapping[str, Any] | None = None,
    inputs: Sequence[str] | None = None,
    depth: Depth = "layers",
    fused_rnn: bool = True,
    eager: bool = False,
) -> KerasSession:
    """Open a live Keras model or layer, or a ``.keras`` or ``.h5`` file.

    ``allow_code`` loads Lambda layers, whose Python code is in the file. ``custom_objects`` maps
    names to the classes and functions that a file needs. ``inputs`` names the tensors of the list
    that a subclassed model takes as its first argument. ``depth="ops"`` lists the result of every
    operation inside the layers too. ``fused_rnn=False`` keeps recurrent layers from running in
    fused kernels (cuDNN, or PyTorch's own loop), which do not give the cell state of each step.
    ``eager=True`` runs operation by operation, as ``model(x)`` does, not compiled, as ``predict``
    does: slower, and the last bits can differ between the two; models that look at values (``if``
    on a tensor) run this way only, on TensorFlow and JAX.

    Raises UnknownSource, CorruptModel, or SourceError for a file that needs one of these options.
    """
    if depth not in get_args(Depth):
        raise SourceError(
            f"there is no depth {depth!r}", hint=f"it is one of {', '.join(get_args(Depth))}"
        )
    if eager and depth == "ops":
        raise SourceError(
            "single operations are read from the compiled model", hint="leave out eager=True"
        )
    if isinstance(source, str | Path):
        from layertap.runtimes.keras.files import check

        check(Path(source), allow_code=allow_code, custom_objects=custom_objects or {})
    from layertap.runtimes.keras.session import KerasSession
    from layertap.runtimes.keras.sources import load

    loaded = load(source, allow_code=allow_code, custom_objects=custom_objects)
    return KerasSession(loaded, inputs, operations=depth == "ops", fused_rnn=fused_rnn, eager=eager)


def attach(model: Any, selector: Selector = None) -> AbstractContextManager[Mapping[str, Array]]:
    """Read layers of a live model while the caller calls it: see
    :func:`layertap.runtimes.keras.attached.attach`."""
    from layertap.runtimes.keras.attached import attach as attached

    return attached(model, selector)


__all__ = ["attach", "open"]
