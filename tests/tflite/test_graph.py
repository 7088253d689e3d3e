from __future__ import annotations

import numpy as np

from layertap.testing.tflite import (
    OperatorSpec,
    SignatureSpec,
    SubgraphSpec,
    TensorSpec,
    write_tflite,
)
from layertap.tflite.graph import TapGraph, tap_graph
from layertap.tflite.model import parse


def listed(*subgraphs: SubgraphSpec, dynamic: bool = False, **more: object) -> TapGraph:
    return tap_graph(parse(write_tflite(*subgraphs, **more)), dynamic=dynamic)


def test_order_kinds_ops_and_operands() -> None:
    tensors = [
        TensorSpec("out", (2, 3)),
        TensorSpec("w", (3,), data=np.ones(3, np.float32)),
        TensorSpec("x", (2, 3)),
        TensorSpec("mid", (2, 3)),
        TensorSpec("loose", (2, 3)),
        TensorSpec("memory", (1, 3), variable=True),
    ]
    operators = [OperatorSpec("ADD", [2, 1], [3]), OperatorSpec("my_op", [3, -1, 5], [0])]
    graph = listed(SubgraphSpec(tensors, [2], [0], operators)).graph
    assert [(t.name, t.kind, t.op, t.native) for t in graph] == [
        ("x", "input", "INPUT", "#2"),
        ("mid", "activation", "ADD", "#3"),
        ("out", "output", "my_op", "#0"),
        ("memory", "state", "VARIABLE", "#5"),
        ("w", "weight", "CONSTANT", "#1"),
        ("loose", "activation", "", "#4"),
    ]
    assert graph["mid"].operands == ("x", "w")
    assert graph["out"].operands == ("mid", "memory")
    assert graph["loose"].untappable == "no operator computes it"
    assert [t.name for t in graph if t.untappable] == ["loose"]


def test_names_are_unique_without_hiding_what_the_file_says() -> None:
    names = ["x", "", "dup", "dup", "dup@1", "s1/y"]
    tensors = [TensorSpec(name, (1, 2)) for name in names]
    chain = [OperatorSpec("RELU", [i], [i + 1]) for i in range(5)]
    inner = SubgraphSpec([TensorSpec("y", (1, 2)), TensorSpec("", (1, 2))], [0], [0], [])
    graph = listed(SubgraphSpec(tensors, [0], [5], chain), inner).graph
    assert [t.name for t in graph] == [
        "x", "relu_1", "dup", "dup@2", "dup@1", "s1/y", "s1/y@1", "s1/tensor_1",
    ]  # fmt: skip


def test_batch_is_the_first_axis_that_all_inputs_share() -> None:
    def batch(*shapes: tuple[int, ...]) -> int | None:
        tensors = [TensorSpec(f"x{i}", shape) for i, shape in enumerate(shapes)]
        tensors.append(TensorSpec("not an input", (9,)))
        return listed(SubgraphSpec(tensors, list(range(len(shapes))), [], [])).batch

    assert batch((4, 3)) == 4
    assert batch((4, 3), (4,)) == 4
    assert batch((4, 3), (3, 4)) is None
    assert batch((4, 3), ()) is None
    assert batch() is None
    assert batch((0, 3)) is None


def test_what_a_row_belongs_to() -> None:
    tensors = [
        TensorSpec("x", (4, 3)),
        TensorSpec("rows", (4, 2)),
        TensorSpec("sum", (3,)),
        TensorSpec("scalar", ()),
        TensorSpec("w", (4, 3), data=np.ones((4, 3), np.float32)),
        TensorSpec("found", (4, 2), "int64"),
    ]
    operators = [
        OperatorSpec("ADD", [0, 4], [1]),
        OperatorSpec("SUM", [0], [2]),
        OperatorSpec("SUM", [0], [3]),
        OperatorSpec("WHERE", [0], [5]),
    ]
    graph = listed(SubgraphSpec(tensors, [0], [1, 2, 3, 5], operators)).graph
    assert {t.name: t.per for t in graph} == {
        "x": "sample", "rows": "sample", "sum": "batch", "scalar": "batch", "w": "run",
        "found": "batch",
    }  # fmt: skip


def test_open_sizes() -> None:
    tensors = [
        TensorSpec("x", (1, 1, 8), signature=(-1, -1, 8)),
        TensorSpec("y", (1, 1, 8), signature=(-1, -1, 8)),
        TensorSpec("z", (1, 8)),
    ]
    operators = [OperatorSpec("RELU", [0], [1]), OperatorSpec("MEAN", [1], [2])]
    main = SubgraphSpec(tensors, [0], [2], operators)
    assert [t.shape for t in listed(main).graph] == [(1, 1, 8), (1, 1, 8), (1, 8)]
    opened = listed(main, dynamic=True)
    assert [t.shape for t in opened.graph] == [(1, None, 8), (1, None, 8), (1, 8)]
    assert opened.inputs[0].shape == (1, None, 8)


def test_a_first_axis_that_only_the_tensor_leaves_open_counts_no_samples() -> None:
    tensors = [TensorSpec("x", (1, 8)), TensorSpec("y", (1, 8), signature=(-1, 8))]
    main = SubgraphSpec(tensors, [0], [1], [OperatorSpec("my_op", [0], [1])])
    tap = listed(main, dynamic=True).graph["y"]
    assert (tap.per, tap.shape) == ("batch", (None, 8))


def test_called_subgraphs_and_other_signatures_say_why() -> None:
    body = SubgraphSpec(
        [TensorSpec("a", (1, 2)), TensorSpec("b", (1, 2))], [0], [1],
        [OperatorSpec("RELU", [0], [1])],
    )  # fmt: skip
    main = SubgraphSpec(
        [TensorSpec("c", (), "bool"), TensorSpec("x", (1, 2)), TensorSpec("y", (1, 2))],
        [0, 1], [2], [OperatorSpec("IF", [0, 1], [2], {0: 1, 1: 2})],
    )  # fmt: skip
    other = SignatureSpec("encode", {"a": 0}, {"b": 1}, subgraph=3)
    graph = listed(main, body, body, body, body, signatures=[other]).graph
    assert [t.name for t in graph.inputs] == ["c", "x"]
    assert [t.name for t in graph.outputs] == ["y"]
    assert graph["s1/a"].kind == "argument"
    assert "IF" in graph["s1/b"].untappable
    assert "IF" in graph["s2/b"].untappable
    assert "'encode'" in graph["s3/b"].untappable
    assert "nothing runs" in graph["s4/b"].untappable
    assert graph["s1/b"].native == "s1/#1"


def test_what_operators_run_can_be_listed_with_a_value_for_each_time() -> None:
    channels = {"scales": [0.5, 0.25], "zero_points": [0, 0], "axis": 1}
    weight = TensorSpec("w", (2,), data=np.ones(2, np.float32))
    body = SubgraphSpec(
        [TensorSpec("a", (1, 2)), TensorSpec("b", (1, 2), "int8", **channels), weight],
        [0],
        [1],
        [OperatorSpec("my_op", [0, 2], [1])],
    )
    main = SubgraphSpec(
        [TensorSpec("x", (1, 2)), TensorSpec("y", (1, 2))],
        [0], [1], [OperatorSpec("WHILE", [0], [1], {0: 1, 1: 1})],
    )  # fmt: skip
    other = SignatureSpec("encode", {"a": 0}, {"b": 1}, subgraph=2)
    model = parse(write_tflite(main, body, body, signatures=[other]))
    graph = tap_graph(model, inside=True).graph
    assert (graph["s1/a"].kind, graph["s1/b"].kind, graph["s1/w"].kind) == (
        "argument",
        "activation",
        "weight",
    )
    assert not graph["s1/a"].untappable
    assert (graph["s1/b"].shape, graph["s1/b"].per) == ((None, 1, 2), "batch")
    assert (graph["s1/w"].shape, graph["s1/w"].per) == ((2,), "run")
    quantization = graph["s1/b"].quantization
    assert quantization is not None
    codes = np.ones((3, 1, 2), np.int8)
    np.testing.assert_array_equal(quantization.dequantize(codes)[2], [[0.5, 0.25]])
    assert (graph["x"].shape, graph["x"].per, graph["y"].kind) == ((1, 2), "sample", "output")
    assert "'encode'" in graph["s2/b"].untappable


def test_what_cannot_be_read_says_why() -> None:
    tensors = [
        TensorSpec("x", (1, 2)),
        TensorSpec("handle", (), "resource"),
        TensorSpec("text", (1,), "string"),
        TensorSpec("sparse", (4,), data=np.ones(4, np.float32), sparse=True),
        TensorSpec("twice", (1, 2)),
    ]
    operators = [
        OperatorSpec("VAR_HANDLE", [], [1], {1: "v"}),
        OperatorSpec("my_op", [0], [2]),
        OperatorSpec("RELU", [0], [4]),
        OperatorSpec("RELU", [3], [4]),
    ]
    graph = listed(SubgraphSpec(tensors, [0], [4], operators)).graph
    assert "resource" in graph["handle"].untappable
    assert "string" in graph["text"].untappable
    assert "sparse" in graph["sparse"].untappable
    assert "more than one" in graph["twice"].untappable
