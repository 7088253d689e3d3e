"""TensorFlow functions, graphs, SavedModels and frozen files. Importing this imports TensorFlow."""

import os
import sys
from pathlib import Path
from typing import Any

if "tensorflow" not in sys.modules:
    # Start-up notices are kept off stderr unless the user asked for a log level.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

from layertap.runtimes.tensorflow.session import TensorFlowSession
from layertap.runtimes.tensorflow.sources import load


def open(
    source: Any,
    *,
    signature: str | None = None,
    session: Any = None,
    checkpoint: str | Path | None = None,
) -> TensorFlowSession:
    """Open a ``tf.function``, a ConcreteFunction, a ``tf.Graph`` or ``tf.compat.v1.Session``, a
    SavedModel folder, a ``.pb``, ``.pbtxt`` or ``.meta`` file.

    ``signature`` picks one of a SavedModel's, as does ``folder#signature``. ``session`` is the
    ``tf.compat.v1.Session`` that holds the values of a live graph's variables, ``checkpoint`` the
    prefix of the files that hold those of a file's, if they do not lie where they usually do.

    Raises UnknownSource, CorruptModel or SourceError.
    """
    return TensorFlowSession(
        load(source, signature=signature, session=session, checkpoint=checkpoint)
    )


__all__ = ["open"]
