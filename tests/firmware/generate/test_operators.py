"""Operators and the methods that register them."""

from __future__ import annotations

import re

import pytest
from tflm_tree import Tree

from layertap.errors import PlanError
from layertap.firmware.generate.operators import METHODS, Registration, registrations
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import TfliteModel, parse
from layertap.tflite.schema import OPERATORS


def chain(*operators: str) -> TfliteModel:
    """A model of these operators one after the other."""
    tensors = [TensorSpec(f"t{i}", (1, 4)) for i in range(len(operators) + 1)]
    steps = [OperatorSpec(name, [i], [i + 1]) for i, name in enumerate(operators)]
    return parse(write_tflite(SubgraphSpec(tensors, [0], [len(operators)], steps)))


def test_each_operator_is_registered_once_and_no_other_is() -> None:
    found = registrations(chain("TANH", "RELU", "BATCH_MATMUL", "RELU"))
    assert found == (
        Registration("BATCH_MATMUL", "AddBatchMatMul"),
        Registration("RELU", "AddRelu"),
        Registration("TANH", "AddTanh"),
    )


def test_operators_of_subgraphs_count() -> None:
    inner = chain("RELU").subgraphs[0]
    outer = chain("TANH")
    both = TfliteModel(outer.data, (*outer.subgraphs, inner), (), {})
    assert [r.name for r in registrations(both)] == ["RELU", "TANH"]


def test_custom_operators_with_and_without_a_method() -> None:
    found = registrations(chain("SignalPCAN", "My:Own op"))
    assert found == (
        Registration("My:Own op", "", "layertap_register_my_own_op"),
        Registration("SignalPCAN", "AddPCAN"),
    )


def test_custom_operators_of_like_names_get_functions_of_their_own() -> None:
    found = registrations(chain("my-op", "my.op"))
    assert len({r.function for r in found}) == 2


def test_operators_without_a_kernel_are_named() -> None:
    with pytest.raises(PlanError, match="no kernel for GELU, UNIQUE") as caught:
        registrations(chain("RELU", "UNIQUE", "GELU"))
    assert "--until" in caught.value.hint


def test_the_table_is_about_operators_that_there_are() -> None:
    custom = {name for name in METHODS if name not in OPERATORS}
    assert {"CIRCULAR_BUFFER", "TFLM_DECODE", "TFLite_Detection_PostProcess", "ethos-u"} <= custom
    assert {name for name in custom if not name.startswith("Signal")} == {
        "CIRCULAR_BUFFER",
        "TFLM_DECODE",
        "TFLite_Detection_PostProcess",
        "ethos-u",
    }
    assert len(set(METHODS.values())) == len(METHODS)


def test_the_table_is_that_of_the_interpreter(tree: Tree) -> None:
    name = "tensorflow/lite/micro/micro_mutable_op_resolver.h"
    header = next(path for folder in tree.includes if (path := folder / name).is_file()).read_text()
    one = r"TfLiteStatus (Add\w+)\((?:(?!TfLiteStatus ).)*?"
    builtin = re.findall(one + r"AddBuiltin\(\s*BuiltinOperator_(\w+)", header, re.DOTALL)
    custom = re.findall(one + r'AddCustom\(\s*"([\w-]+)"', header, re.DOTALL)
    there = {name: method for method, name in builtin + custom}
    assert len(there) > 90
    assert {name: METHODS.get(name) for name in there} == there
