"""TensorFlow Lite Micro on the host: the real micro interpreter with its reference kernels."""

from __future__ import annotations

from pathlib import Path

from layertap.runtimes.tflm.session import TflmSession


def open(
    source: str | Path | bytes,
    *,
    arena: int | str | None = None,
    target: str | None = None,
    keep_state: bool = False,
    timeout: float | None = None,
) -> TflmSession:
    """Open a .tflite file, or its bytes, in TensorFlow Lite Micro.

    arena: size of the tensor arena in bytes, or a text such as ``"96K"`` (of 1024 bytes); None
    finds one that is large enough. Taps that do not fit together are read in several passes.
    Values do not depend on it.
    target: plan those passes for the arena of a chip (``"cortex-m"``, ``"ilp32"``), whose
    structures are smaller than the host's; the arena on the host is then as large as it needs.
    keep_state: variables keep their values from one execution to the next, from fresh ones when a
    capture starts. By default they are reset before each execution.
    timeout: seconds that one execution may take.

    Listing tap points needs nothing installed. Raises SourceError or CorruptModel.
    """
    return TflmSession(source, arena=arena, target=target, keep_state=keep_state, timeout=timeout)


__all__ = ["TflmSession", "open"]
