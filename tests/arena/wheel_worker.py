"""Allocates models in the tflite-micro wheel and prints what it says about it: one request and one
answer a line, as JSON. A process of its own, since too small an arena can end it."""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import tempfile
from typing import IO, Any

import numpy as np
from tflite_micro import runtime

FIGURES = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")

WINDOW = 1 << 20
"""Bytes around the first input that are searched."""


def allocate(path: str, arena: int, outputs: int = 0) -> dict[str, Any]:
    """Load a model and let the interpreter print what it took; with ``outputs``, run it and tell
    where their values lie in memory, in bytes from where the first input lies."""
    interpreter = runtime.Interpreter.from_file(path, arena_size=arena)
    interpreter.print_allocations()
    return {"outputs": places(interpreter, arena, outputs)} if outputs else {}


def places(interpreter: Any, arena: int, outputs: int) -> list[list[int]]:
    """All places at which the value of each output is found in the arena."""
    detail = interpreter.get_input_details(0)
    rng = np.random.default_rng(0)
    value = rng.integers(-100, 100, detail["shape"]).astype(detail["dtype"])
    interpreter.set_input(value, 0)
    start, memory = region_with(value.tobytes(), arena)
    interpreter.invoke()
    low, high = max(memory.start, start - WINDOW), min(memory.stop, start + WINDOW)
    content = ctypes.string_at(low, high - low)
    found = []
    for i in range(outputs):
        wanted = interpreter.get_output(i).tobytes()
        hits = [m.start() for m in re.finditer(b"(?=" + re.escape(wanted) + b")", content)]
        found.append([low + hit - start for hit in hits])
    return found


def region_with(wanted: bytes, arena: int) -> tuple[int, range]:
    """The address of ``wanted`` in the memory that holds the arena, and that memory."""
    with open("/proc/self/maps") as maps:  # noqa: PTH123 - not a file
        for line in maps:
            bounds, rights = line.split()[:2]
            low, high = (int(text, 16) for text in bounds.split("-"))
            if "w" in rights and high - low >= arena:
                at = ctypes.string_at(low, high - low).find(wanted)
                if at >= 0:
                    return low + at, range(low, high)
    raise LookupError("the input is nowhere in memory")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile("w+b", buffering=0) as log:
        os.dup2(log.fileno(), 2)
        os.dup2(log.fileno(), 1)
        for line in sys.stdin:
            log.seek(0)
            log.truncate()
            # A child for each, since loading everything anew after a crash takes a second.
            child = os.fork()
            if child == 0:
                answer(line, log.fileno(), answers)
                os._exit(0)
            if os.waitpid(child, 0)[1]:
                print(json.dumps({"error": "it crashed"}), file=answers, flush=True)


def answer(line: str, log: int, answers: IO[str]) -> None:
    try:
        found = allocate(**json.loads(line))
    except Exception as error:  # told to the test, which knows what it expects
        found = {"error": str(error)}
    said = os.pread(log, 1 << 20, 0).decode(errors="replace")
    found |= {name: int(size) for name, size in FIGURES.findall(said)}
    found["log"] = said[-2000:]
    print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
