"""Allocates models in the tflite-micro wheel and prints what it says about it: one request and one
answer a line, as JSON. A process of its own, since too small an arena can end it."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from typing import Any

from tflite_micro import runtime

FIGURES = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")


def allocate(path: str, arena: int) -> dict[str, Any]:
    """Load a model and let the interpreter print what it took."""
    interpreter = runtime.Interpreter.from_file(path, arena_size=arena)
    interpreter.print_allocations()
    return {}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile("w+b", buffering=0) as log:
        os.dup2(log.fileno(), 2)
        os.dup2(log.fileno(), 1)
        for line in sys.stdin:
            request = json.loads(line)
            log.seek(0)
            log.truncate()
            try:
                answer = allocate(**request)
            except Exception as error:  # told to the test, which knows what it expects
                answer = {"error": str(error)}
            said = os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")
            answer |= {name: int(size) for name, size in FIGURES.findall(said)}
            answer["log"] = said[-2000:]
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
