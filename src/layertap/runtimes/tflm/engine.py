"""The worker's part of the runtime: the micro interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tflite_micro import runtime

from layertap.core.dtypes import Array
from layertap.runtimes.worker.serve import serve


class MicroModel:
    """A model in the micro interpreter; outputs are addressed by their position."""

    facts: Mapping[str, Any]

    def __init__(self, model: bytes, options: Mapping[str, Any]) -> None:
        self._interpreter = runtime.Interpreter.from_bytes(model, arena_size=options["arena"])
        self._keep_state = options["keep_state"]
        self.facts = {}

    def run(self, inputs: list[Array], outputs: list[int]) -> list[Array]:
        if not self._keep_state:
            self._interpreter.reset()
        for position, value in enumerate(inputs):
            self._interpreter.set_input(value, position)
        self._interpreter.invoke()
        return [self._interpreter.get_output(position) for position in outputs]


if __name__ == "__main__":
    serve(MicroModel)
