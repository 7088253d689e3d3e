"""The conformance suite in TensorFlow Lite Micro."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from hypothesis import strategies as st
from tflite_micro import runtime

from layertap.testing.runtime import Case, RuntimeSuite
from layertap.testing.tflite_cases import KnownModel, known_model, known_models


def run_alone(known: KnownModel) -> Mapping[str, np.ndarray]:
    interpreter = runtime.Interpreter.from_bytes(known.data, arena_size=1 << 20)
    for position, value in enumerate(known.feed.values()):
        interpreter.set_input(value, position)
    interpreter.invoke()
    return {name: interpreter.get_output(i) for i, name in enumerate(known.outputs)}


def case_of(known: KnownModel) -> Case:
    return Case(
        source=known.data,
        feed=known.feed,
        oracle=known.oracle,
        outputs=lambda: run_alone(known),
        fingerprint=lambda: hashlib.sha256(known.data).hexdigest(),
    )


class TestTflm(RuntimeSuite):
    runtime = "tflm"
    isolation = (
        "import layertap\n"
        "from layertap.testing.tflite_cases import known_model\n"
        "known = known_model()\n"
        "with layertap.open(known.data, runtime='tflm') as model:\n"
        "    model.capture(known.feed)\n"
    )

    def make_case(self) -> Case:
        return case_of(known_model())

    def random_cases(self) -> st.SearchStrategy[Case]:
        return known_models().map(case_of)
