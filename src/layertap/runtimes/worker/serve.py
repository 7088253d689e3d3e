"""The worker's side: load models, run them, answer until the session goes away."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any, Protocol

from layertap.core.dtypes import Array
from layertap.runtimes.worker.wire import Header, receive, send


class Engine(Protocol):
    """One loaded model."""

    def run(self, inputs: list[Array], outputs: list[int]) -> list[Array]:
        """Execute once; ``inputs`` in the model's order, ``outputs`` are positions or indices."""
        ...


Load = Callable[[bytes, Mapping[str, Any]], Engine]


def serve(load: Load) -> None:
    """Answer requests from standard input until it ends."""
    requests, answers = _take_over_streams()
    # A terminal's Ctrl-C is for the caller, who decides what becomes of the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loaded: dict[int, Engine] = {}
    send(answers, {"ready": True})
    while True:
        try:
            header, arrays = receive(requests)
        except EOFError:
            return
        _guard(header.get("timeout"))
        try:
            answer, values = _answer(load, loaded, header, arrays)
        except Exception as error:  # the session raises it again as a layertap error
            answer, values = {"error": str(error), "type": type(error).__name__}, []
        _guard(None)
        try:
            send(answers, answer, values)
        except BrokenPipeError:
            return


def _answer(
    load: Load, loaded: dict[int, Engine], header: Header, arrays: list[Array]
) -> tuple[Header, list[Array]]:
    for slot in header.get("drop", ()):
        loaded.pop(slot, None)
    if header["do"] == "load":
        loaded[header["slot"]] = load(arrays[0].tobytes(), header["options"])
        return {}, []
    return {}, loaded[header["slot"]].run(arrays, header["outputs"])


def _take_over_streams() -> tuple[IO[bytes], IO[bytes]]:
    """The pipes to the session, moved away from the descriptors that native code prints to."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device, not a path
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, answers


def _guard(seconds: float | None) -> None:
    """Let the system end this process after ``seconds``, also when native code holds the lock and
    the session, which keeps time itself, is gone."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0 if seconds is None else seconds)


__all__ = ["Engine", "Load", "serve"]
