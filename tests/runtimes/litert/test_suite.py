"""The conformance suite in LiteRT, with delegates and without."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import strategies as st

from layertap.testing.runtime import Case, RuntimeSuite
from layertap.testing.tflite_cases import KnownModel, known_model, known_models

RESOLVERS = {
    "default": OpResolverType.AUTO,
    "reference": OpResolverType.BUILTIN_REF,
}


def run_alone(known: KnownModel, kernels: str) -> Mapping[str, np.ndarray]:
    interpreter = Interpreter(
        model_content=known.data, experimental_op_resolver_type=RESOLVERS[kernels]
    )
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), known.feed.values(), strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    details = interpreter.get_output_details()
    return {
        name: interpreter.get_tensor(detail["index"])
        for name, detail in zip(known.outputs, details, strict=True)
    }


class LitertSuite(RuntimeSuite):
    runtime = "litert"
    kernels: ClassVar[str]
    examples = 8
    isolation = (
        "import layertap\n"
        "from layertap.testing.tflite_cases import known_model\n"
        "known = known_model()\n"
        "with layertap.open(known.data, runtime='litert') as model:\n"
        "    model.capture(known.feed)\n"
    )

    def case_of(self, known: KnownModel) -> Case:
        return Case(
            source=known.data,
            feed=known.feed,
            oracle=known.oracle,
            outputs=lambda: run_alone(known, self.kernels),
            fingerprint=lambda: hashlib.sha256(known.data).hexdigest(),
            options={"kernels": self.kernels},
        )

    def make_case(self) -> Case:
        return self.case_of(known_model())

    def random_cases(self) -> st.SearchStrategy[Case]:
        return known_models().map(self.case_of)


class TestDefaultKernels(LitertSuite):
    kernels = "default"


class TestReferenceKernels(LitertSuite):
    kernels = "reference"
