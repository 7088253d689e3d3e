"""TensorFlow functions, graphs, SavedModels and frozen files. Importing this imports TensorFlow."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if "tensorflow" not in sys.modules:
    # Start-up notices are kept off stderr unless the user asked for a log level.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

from layertap.core.collector import collector_paused
from layertap.runtimes.tensorflow.graphs import Interface
from layertap.runtimes.tensorflow.session import TensorFlowSession
from layertap.runtimes.tensorflow.sources import load


def open(
    source: Any,
    *,
    signature: str | None = None,
    session: Any = None,
    checkpoint: str | Path | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> TensorFlowSession:
    """Open a ``tf.function``, a ConcreteFunction, a ``tf.Graph`` or ``tf.compat.v1.Session``, a
    SavedModel folder, a ``.pb``, ``.pbtxt`` or ``.meta`` file.

    ``signature`` picks one of a SavedModel's, as does ``folder#signature``. ``session`` is the
    ``tf.compat.v1.Session`` that holds the values of a live graph's variables, ``checkpoint`` the
    prefix of the files that hold those of a file's, if they do not lie where they usually do.
    ``outputs`` names the tensors of a graph without signatures that are wanted (``"probs"``,
    ``"split:1"``): then only what they need is listed. ``inputs`` names those to feed; by default
    they are the placeholders.

    Raises UnknownSource, CorruptModel or SourceError.
    """
    given = Interface(_by_name(inputs), _by_name(outputs))
    with collector_paused():
        opened = load(
            source, signature=signature, session=session, checkpoint=checkpoint, given=given
        )
        return TensorFlowSession(opened)


def _by_name(tensors: Sequence[str] | None) -> dict[str, str] | None:
    if tensors is None:
        return None
    names = [tensors] if isinstance(tensors, str) else tensors
    return {name.removesuffix(":0"): name for name in names}


__all__ = ["open"]
