from __future__ import annotations

import pytest

from layertap.arena.lifetimes import MAX_DEPTH, Scratch, Step, lifetimes
from layertap.errors import CorruptModel
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import TfliteModel, parse

WHILE = {0: 1, 1: 2}


def model(*subgraphs: SubgraphSpec) -> TfliteModel:
    return parse(write_tflite(*subgraphs))


def tensors(count: int) -> list[TensorSpec]:
    return [TensorSpec(f"t{i}", (4,), "float32") for i in range(count)]


def chain(count: int, outputs: list[int]) -> SubgraphSpec:
    steps = [OperatorSpec("RELU", [i], [i + 1]) for i in range(count)]
    return SubgraphSpec(tensors(count + 1), [0], outputs, steps)


def test_a_tensor_lives_from_its_producer_to_its_last_consumer() -> None:
    found = lifetimes(model(chain(3, [3])))
    assert found.tensors == (((0, 1), (1, 2), (2, 3), (3, 3)),)
    assert found.steps == (Step(0, 0, None), Step(1, 0, 0), Step(2, 0, 1), Step(3, 0, 2))


def test_an_output_lives_to_the_end() -> None:
    assert lifetimes(model(chain(3, [1, 3]))).tensors == (((0, 1), (1, 3), (2, 3), (3, 3)),)


def test_an_input_that_is_returned_lives_throughout() -> None:
    assert lifetimes(model(chain(2, [0, 2]))).tensors[0][0] == (0, 2)


def test_nothing_touches_a_dangling_tensor() -> None:
    graph = SubgraphSpec(tensors(3), [0], [1], [OperatorSpec("RELU", [0], [1])])
    assert lifetimes(model(graph)).tensors[0][2] == (-1, -1)


def test_scratch_lives_with_its_operator() -> None:
    requests = [Scratch(0, 1, 8), Scratch(0, 0, 8), Scratch(0, 1, 8)]
    assert lifetimes(model(chain(2, [2])), requests).scratch == ((2, 2), (1, 1), (2, 2))


def test_subgraphs_are_walked_where_they_run() -> None:
    """Entering cond is scope 2, its operator 3, entering body 4, its operators 5 and 6."""
    loop = SubgraphSpec(
        tensors(3),
        [0],
        [2],
        [OperatorSpec("WHILE", [0], [1], WHILE), OperatorSpec("RELU", [1], [2])],
    )
    found = lifetimes(model(loop, chain(1, [1]), chain(2, [2])), [Scratch(0, 0, 8)])
    assert found.tensors[0] == ((0, 6), (1, 7), (7, 7))
    assert found.tensors[1] == ((2, 3), (3, 3))
    assert found.tensors[2] == ((4, 5), (5, 6), (6, 6))
    assert found.scratch == ((1, 6),)


def test_an_empty_subgraph_has_lifetimes_too() -> None:
    found = lifetimes(model(SubgraphSpec(tensors(2), [0], [1], [])))
    assert found.tensors == (((0, 0), (0, 0)),)


def test_a_subgraph_that_runs_itself_is_refused() -> None:
    loop = SubgraphSpec(tensors(2), [0], [1], [OperatorSpec("WHILE", [0], [1], {0: 0, 1: 0})])
    with pytest.raises(CorruptModel, match="subgraph 0 runs itself"):
        lifetimes(model(loop))


def nested(depth: int, calls: int) -> TfliteModel:
    """``depth`` subgraphs, each of which runs the next, twice for each of its ``calls``."""
    graphs = [
        SubgraphSpec(
            tensors(2),
            [0],
            [1],
            [OperatorSpec("WHILE", [0], [1], {0: i + 1, 1: i + 1})] * calls,
        )
        for i in range(depth)
    ]
    return model(*graphs, chain(1, [1]))


@pytest.mark.parametrize(("depth", "calls"), [(22, 1), (MAX_DEPTH, 1), (12, 8)])
def test_a_small_file_cannot_take_forever(depth: int, calls: int) -> None:
    with pytest.raises(CorruptModel, match="run one another more than"):
        lifetimes(nested(depth, calls))


@pytest.mark.slow
def test_neither_can_one_with_long_lists() -> None:
    many = list(range(20_000))
    leaf = SubgraphSpec(tensors(20_000), many, [0], [OperatorSpec("ADD_N", many, [0])])
    graphs = [
        SubgraphSpec(
            tensors(2), [0], [1], [OperatorSpec("WHILE", [0], [1], {0: i + 1, 1: i + 1})] * 4
        )
        for i in range(5)
    ]
    with pytest.raises(CorruptModel, match="name 4,194,304 tensors"):
        lifetimes(model(*graphs, leaf))
