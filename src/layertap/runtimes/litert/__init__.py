"""LiteRT (TensorFlow Lite): any .tflite file, with a choice of kernels."""

from __future__ import annotations

from pathlib import Path

from layertap.runtimes.litert.session import LitertSession


def open(
    source: str | Path | bytes,
    *,
    kernels: str = "default",
    threads: int = 1,
    signature: str | None = None,
    keep_state: bool = False,
    timeout: float | None = None,
) -> LitertSession:
    """Open a .tflite file, or its bytes, in LiteRT.

    kernels: ``"default"`` as applications get them (XNNPACK where it can), ``"builtin"`` without
    delegates, or ``"reference"``. They give different values.
    threads: threads of the interpreter.
    signature: which of several signatures to run; None for the file's first subgraph.
    keep_state: variables keep their values from one execution to the next, from fresh ones when a
    capture starts. By default they are reset before each execution.
    timeout: seconds that one execution may take.

    Listing tap points needs nothing installed. Raises SourceError or CorruptModel.
    """
    return LitertSession(
        source,
        kernels=kernels,
        threads=threads,
        signature=signature,
        keep_state=keep_state,
        timeout=timeout,
    )


__all__ = ["LitertSession", "open"]
