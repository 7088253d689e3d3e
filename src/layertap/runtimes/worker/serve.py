"""The worker's side: load models, run them, answer until the session goes away."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from layertap.core.dtypes import Array
from layertap.runtimes.worker.block import Block
from layertap.runtimes.worker.records import Read, Records
from layertap.runtimes.worker.wire import Header, receive, send

_SHARE = 0.002
"""Seconds from one message about what is ready to the next."""

_LOOK = 1.0
"""Seconds from one look whether the session is still there to the next."""

_GRACE = 2.0
"""Seconds that a worker gives the session to end it, beyond the time for an execution."""


class Engine(Protocol):
    """One loaded model."""

    def readers(self, outputs: Sequence[int]) -> list[Read]:
        """How to read ``outputs``, which are positions or indices, after an execution."""
        ...

    def execute(self, inputs: list[Array]) -> None:
        """Execute once; ``inputs`` in the model's order."""
        ...


Load = Callable[[bytes, Mapping[str, Any]], Engine]
Say = Callable[[Mapping[str, Any]], None]


def serve(load: Load) -> None:
    """Answer requests until the session is gone. The arguments of the program are the descriptors
    of the socket to the session and of the shared block."""
    channel, block = socket.socket(fileno=int(sys.argv[1])), Block(int(sys.argv[2]))
    # A terminal's Ctrl-C is for the caller, who decides what becomes of the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = _Server(load, channel, block)
    send(channel, {"ready": True})
    while True:
        try:
            server.answer(*receive(channel))
        except (EOFError, ConnectionError):
            return


class _Server:
    def __init__(self, load: Load, channel: socket.socket, block: Block) -> None:
        self.load, self.channel, self.block = load, channel, block
        self.loaded: dict[int, Engine] = {}
        self.session = os.getppid()

    def answer(self, header: Header, payload: bytes) -> None:
        say = partial(self._say, header["request"])
        guard = _Guard(header["timeout"], self.session)
        try:
            for slot in header["drop"]:
                self.loaded.pop(slot, None)
            if header["do"] == "load":
                self.loaded[header["slot"]] = self.load(payload, header["options"])
            else:
                self._run(header, guard, say)
        except ConnectionError:
            raise
        except Exception as error:  # the session raises it again as a layertap error
            say({"error": str(error)})
        else:
            say({"end": True})
        finally:
            guard.off()

    def _say(self, request: int, message: Mapping[str, Any]) -> None:
        send(self.channel, {"request": request, **message})

    def _run(self, header: Header, guard: _Guard, say: Say) -> None:
        """Execute once for each row of the inputs while there is room for what is read. The session
        is told now and then what is ready, so that it takes that meanwhile."""
        engine = self.loaded[header["slot"]]
        inputs = [self.block.array(place) for place in header["inputs"]]
        readers = engine.readers(header["outputs"])
        start, limit, count = header["start"], header["limit"], header["count"]
        records = Records(self.block, start, limit, count, lambda form: say({"form": form}))
        due = time.monotonic() + _SHARE
        while records.count < count and not records.full:
            engine.execute([rows[records.count, ...] for rows in inputs])
            records.add(readers)
            now = self.block.tell(records.count)
            if now > due:
                say({"ready": records.count})
                guard.renew(now)
                due = now + _SHARE
        say({"ready": records.count})


class _Guard:
    """Lets the system end this process soon after the time that one execution may take, also when
    native code holds the lock, for the session, which keeps time itself, may be gone."""

    def __init__(self, seconds: float, session: int) -> None:
        self.seconds, self.session = seconds, session
        self.due = 0.0
        self.renew(time.monotonic())

    def renew(self, now: float) -> None:
        """An execution has ended by ``now``. Raises ConnectionError when the session is gone."""
        if now < self.due:
            return
        self.due = now + _LOOK
        signal.setitimer(signal.ITIMER_REAL, self.seconds + _GRACE)
        if os.getppid() != self.session:
            raise ConnectionError("the session is gone")

    def off(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


__all__ = ["Engine", "Load", "serve"]
