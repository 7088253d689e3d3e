"""TensorFlow Lite Micro on the host: the real micro interpreter with its reference kernels."""

from __future__ import annotations

from pathlib import Path

from layertap.runtimes.tflm.session import TflmSession


def open(
    source: str | Path | bytes,
    *,
    arena: int | str | None = None,
    keep_state: bool = False,
    timeout: float | None = None,
) -> TflmSession:
    """Open a .tflite file, or its bytes, in TensorFlow Lite Micro.

    arena: size of the tensor arena in bytes, or a text such as ``"96KiB"``; None finds one that
    is large enough. Values do not depend on it.
    keep_state: variables keep their values from one execution to the next, from fresh ones when a
    capture starts. By default they are reset before each execution.
    timeout: seconds that one execution may take.

    Listing tap points needs nothing installed. Raises SourceError or CorruptModel.
    """
    return TflmSession(source, arena=arena, keep_state=keep_state, timeout=timeout)


__all__ = ["TflmSession", "open"]
