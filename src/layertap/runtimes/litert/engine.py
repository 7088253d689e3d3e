"""The worker's part of the runtime: the LiteRT interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_edge_litert.interpreter import Interpreter, OpResolverType

from layertap.core.dtypes import Array
from layertap.runtimes.worker.serve import serve

RESOLVERS = {
    "default": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


class LitertModel:
    """A model in the LiteRT interpreter; outputs are addressed by their tensor index."""

    facts: Mapping[str, Any]

    def __init__(self, model: bytes, options: Mapping[str, Any]) -> None:
        self._model, self._options = model, options
        self._interpreter = self._fresh()
        self._inputs = [detail["index"] for detail in self._interpreter.get_input_details()]
        self._shapes = [
            tuple(detail["shape"].tolist()) for detail in self._interpreter.get_input_details()
        ]
        self._used = False
        self.facts = {}

    def run(self, inputs: list[Array], outputs: list[int]) -> list[Array]:
        self._reset()
        self._used = True
        self._resize([value.shape for value in inputs])
        for index, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, value)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in outputs]

    def _fresh(self) -> Any:
        interpreter = Interpreter(
            model_content=self._model,
            experimental_op_resolver_type=RESOLVERS[self._options["kernels"]],
            num_threads=self._options["threads"],
        )
        interpreter.allocate_tensors()
        return interpreter

    def _reset(self) -> None:
        """Back to the state after loading. Resources outlive ``reset_all_variables``, so a model
        that has some gets a new interpreter."""
        if self._options["keep_state"] or not self._used:
            return
        if self._options["state"] == "resources":
            self._interpreter = None
            self._interpreter = self._fresh()
            self._shapes = []
        elif self._options["state"] == "variables":
            self._interpreter.reset_all_variables()

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        if shapes == self._shapes:
            return
        for index, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(index, shape, strict=False)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


if __name__ == "__main__":
    serve(LitertModel)
