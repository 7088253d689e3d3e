"""The worker's part of the runtime: the LiteRT interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from layertap.core.dtypes import Array
from layertap.runtimes.worker.records import Read
from layertap.runtimes.worker.serve import serve

RESOLVERS = {
    "default": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


class LitertModel:
    """A model in the LiteRT interpreter; outputs are addressed by their tensor index."""

    _interpreter: Any
    _runner: Any

    def __init__(self, model: bytes, options: Mapping[str, Any]) -> None:
        self._model, self._options = model, options
        self._used = False
        self._load()

    def readers(self, outputs: Sequence[int]) -> list[Read]:
        if self._runner is None and self._options["state"] != "resources":
            return [self._viewed(index) for index in outputs]
        return [partial(self._read, index) for index in outputs]

    def execute(self, inputs: list[Array]) -> None:
        self._reset()
        self._used = True
        if self._runner is not None:
            by_index = dict(zip(self._inputs, inputs, strict=True))
            details = self._runner.get_input_details().items()
            self._runner(**{name: by_index[detail["index"]] for name, detail in details})
            return
        self._resize([value.shape for value in inputs])
        for index, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, value)
        self._interpreter.invoke()

    def _viewed(self, index: int) -> Read:
        """Reads by a view, which is faster, in the interpreter that is there now."""
        view: Read = self._interpreter.tensor(index)

        def read() -> Array:
            try:
                return view()
            except ValueError as error:
                return self._without_elements(index, error)

        return read

    def _read(self, index: int) -> Array:
        try:
            value: Array = self._interpreter.get_tensor(index, self._options["subgraph"])
        except ValueError as error:
            return self._without_elements(index, error)
        return value

    def _without_elements(self, index: int, error: ValueError) -> Array:
        """A tensor that the interpreter hands out in no way while it has no elements. Raises
        ``error``, which reading it gave, where it has some."""
        details = self._interpreter.get_tensor_details(self._options["subgraph"])
        found = next((detail for detail in details if detail["index"] == index), None)
        if found is None or 0 not in found["shape"]:
            raise error
        return np.empty(found["shape"], found["dtype"])

    def _load(self) -> None:
        self._interpreter = self._runner = None
        self._interpreter = Interpreter(
            model_content=self._model,
            experimental_op_resolver_type=RESOLVERS[self._options["kernels"]],
            num_threads=self._options["threads"],
        )
        self._inputs: list[int] = self._options["inputs"]
        self._shapes: list[tuple[int, ...]] = []
        if self._options["subgraph"] == 0:
            self._interpreter.allocate_tensors()
        else:
            self._runner = self._interpreter.get_signature_runner(self._options["signature"])

    def _reset(self) -> None:
        """Back to the state after loading. Resources outlive ``reset_all_variables``, so a model
        that has some gets a new interpreter."""
        if self._options["keep_state"] or not self._used:
            return
        if self._options["state"] == "variables" and self._runner is None:
            self._interpreter.reset_all_variables()
        elif self._options["state"] != "none":
            self._load()

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        """Give the inputs these shapes; allocating anew is skipped where nothing changes."""
        if shapes == self._shapes:
            return
        details = self._interpreter.get_input_details()
        if shapes != [tuple(detail["shape"].tolist()) for detail in details]:
            for index, shape in zip(self._inputs, shapes, strict=True):
                self._interpreter.resize_tensor_input(index, shape, strict=False)
            self._interpreter.allocate_tensors()
        self._shapes = shapes


if __name__ == "__main__":
    serve(LitertModel)
