"""The taps of a model by their bits."""

from __future__ import annotations

import numpy as np
import pytest

from layertap.errors import NoSuchTap, PlanError, Untappable
from layertap.firmware.generate.tap_table import check_can_be_outputs, mask_of, tap_table
from layertap.testing.micro_graphs import graph_cases
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.graph import tensor_names
from layertap.tflite.model import TfliteModel, parse


@pytest.fixture
def model() -> TfliteModel:
    tensors = [
        TensorSpec("w", (4, 4), data=np.ones((4, 4), np.float32)),
        TensorSpec("x", (1, 4)),
        TensorSpec("a/b", (1, 4)),
        TensorSpec("a.b", (1, 4), "int8"),
        TensorSpec("text", (1,), "string"),
    ]
    steps = [
        OperatorSpec("FULLY_CONNECTED", [1, 0], [2]),
        OperatorSpec("QUANTIZE", [2], [3]),
        OperatorSpec("CAST", [2], [4]),
    ]
    return parse(write_tflite(SubgraphSpec(tensors, [1], [3], steps)))


@pytest.fixture
def loop() -> TfliteModel:
    return parse(graph_cases()["WHILE"]())


def test_what_a_board_can_send(model: TfliteModel) -> None:
    table = tap_table(model, None)
    assert (table.tensors, table.subgraphs, table.chosen) == (5, 1, ())
    assert [(tap.bit, tap.identifier) for tap in table.taps] == [
        (1, "x"), (2, "a_b_2"), (3, "a_b_3"),
    ]  # fmt: skip
    assert table.mask == b"\0"


def test_chosen_taps_are_in_the_mask(model: TfliteModel) -> None:
    table = tap_table(model, ["a.b", "kind:input"])
    assert [tap.point.name for tap in table.chosen] == ["x", "a.b"]
    assert table.mask == bytes([0b1010])


def test_bits_go_on_from_subgraph_to_subgraph(loop: TfliteModel) -> None:
    table = tap_table(loop, "s2/*")
    names = [name for own in tensor_names(loop) for name in own]
    assert table.subgraphs == len(loop.subgraphs)
    assert table.tensors == len(names) == sum(len(graph.tensors) for graph in loop.subgraphs)
    assert {tap.point.subgraph for tap in table.taps} == {0, 1, 2}
    assert all(names[tap.bit] == tap.point.name for tap in table.taps)
    assert table.chosen
    assert all(tap.point.subgraph == 2 for tap in table.chosen)
    assert table.mask == mask_of([tap.bit for tap in table.chosen], len(names))


def test_bits_of_a_mask() -> None:
    assert mask_of([0, 7, 8, 16], 17) == bytes([0x81, 1, 1])
    assert mask_of([], 8) == b"\0"


@pytest.mark.parametrize(
    ("taps", "error", "said"),
    [
        ("a/c", NoSuchTap, "near names"),
        ("w", Untappable, "'w' is a weight"),
        ("text", Untappable, "string"),
    ],
)
def test_what_cannot_be_sent(
    model: TfliteModel, taps: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        tap_table(model, taps)


def test_what_cannot_be_an_output(model: TfliteModel, loop: TfliteModel) -> None:
    check_can_be_outputs(tap_table(model, "a/b").chosen)
    with pytest.raises(PlanError, match="no taps are given"):
        check_can_be_outputs(())
    with pytest.raises(Untappable, match="inside a subgraph"):
        check_can_be_outputs(tap_table(loop, "s1/*").chosen)
    halves = [TensorSpec("x", (1, 4)), TensorSpec("half", (1, 4), "float16")]
    half = SubgraphSpec(halves, [0], [1], [OperatorSpec("CAST", [0], [1])])
    with pytest.raises(Untappable, match="holds float16"):
        check_can_be_outputs(tap_table(parse(write_tflite(half)), "half").chosen)
