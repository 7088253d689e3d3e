"""The worker's part of the runtime: the micro interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tflite_micro import runtime

from layertap.core.dtypes import Array
from layertap.runtimes.worker.records import Read
from layertap.runtimes.worker.serve import serve


class MicroModel:
    """A model in the micro interpreter; outputs are addressed by their position."""

    def __init__(self, model: bytes, options: Mapping[str, Any]) -> None:
        self._model, self._options = model, options
        self._interpreter = self._fresh()
        self._used = False

    def readers(self, outputs: Sequence[int]) -> list[Read]:
        return [partial(self._read, position) for position in outputs]

    def execute(self, inputs: list[Array]) -> None:
        self._reset()
        self._used = True
        for position, value in enumerate(inputs):
            self._interpreter.set_input(value, position)
        self._interpreter.invoke()

    def _read(self, position: int) -> Array:
        value: Array = self._interpreter.get_output(position)
        return value

    def _fresh(self) -> Any:
        return runtime.Interpreter.from_bytes(self._model, arena_size=self._options["arena"])

    def _reset(self) -> None:
        """Back to the state after loading. ``reset`` empties resource variables without running
        their initialisation again, so a model that has some gets a new interpreter."""
        if self._options["keep_state"] or not self._used:
            return
        if self._options["state"] == "resources":
            self._interpreter = None
            self._interpreter = self._fresh()
        elif self._options["state"] == "variables":
            self._interpreter.reset()


if __name__ == "__main__":
    serve(MicroModel)
