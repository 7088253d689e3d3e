"""The distance from which a result may reach into its operand, against every read and write."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from layertap.arena.overlap import window_distance
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import Subgraph, parse

SAME, VALID = 0, 1


def pool(
    operand: tuple[int, ...],
    result: tuple[int, ...],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: int = SAME,
) -> Subgraph:
    options = {0: padding, 1: stride[1], 2: stride[0], 3: window[1], 4: window[0]}
    tensors = [TensorSpec("x", operand, "int8"), TensorSpec("y", result, "int8")]
    operator = OperatorSpec("MAX_POOL_2D", [0], [1], options)
    return parse(write_tflite(SubgraphSpec(tensors, [0], [1], [operator]))).subgraphs[0]


def distance(graph: Subgraph) -> int | None:
    return window_distance(graph, graph.operators[0])


def sizes(image: tuple[int, int], window: tuple[int, int], stride: tuple[int, int], padding: int):
    """Source: tensorflow/lite/kernels/padding.h."""
    found = []
    for size, reach, step in zip(image, window, stride, strict=True):
        room = size + step - reach if padding == VALID else size + step - 1
        found.append(room // step)
    return found


@st.composite
def pools(draw: st.DrawFn) -> tuple[Subgraph, list[tuple[list[int], int]]]:
    """A pool, and for each element in turn the bytes that are read and the one then written."""
    numbers = st.integers(1, 3)
    image = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    window, stride = draw(st.tuples(numbers, numbers)), draw(st.tuples(numbers, numbers))
    padding, depth, batch = draw(st.sampled_from([SAME, VALID])), draw(numbers), draw(numbers)
    rows, columns = sizes(image, window, stride, padding)
    assume(rows > 0 and columns > 0)
    graph = pool((batch, *image, depth), (batch, rows, columns, depth), window, stride, padding)
    pads = [
        max(0, (count - 1) * step + reach - size) // 2
        for count, step, reach, size in zip((rows, columns), stride, window, image, strict=True)
    ]
    accesses = []
    for n in range(batch * rows * columns * depth):
        rest, channel = divmod(n, depth)
        rest, column = divmod(rest, columns)
        which, row = divmod(rest, rows)
        reads = []
        for y in range(row * stride[0] - pads[0], row * stride[0] - pads[0] + window[0]):
            for x in range(column * stride[1] - pads[1], column * stride[1] - pads[1] + window[1]):
                if 0 <= y < image[0] and 0 <= x < image[1]:
                    reads.append(((which * image[0] + y) * image[1] + x) * depth + channel)
        accesses.append((reads, n))
    return graph, accesses


def survives(accesses: list[tuple[list[int], int]], above: int) -> bool:
    """Whether every byte is read before it is overwritten, the operand so far above the result."""
    written: set[int] = set()
    for reads, write in accesses:
        if any(read + above in written for read in reads):
            return False
        written.add(write)
    return True


@given(pools())
def test_it_is_enough_and_not_much_more(case: tuple[Subgraph, list]) -> None:
    graph, accesses = case
    found = distance(graph)
    assert found is not None
    for more in (0, 1, 5):
        assert survives(accesses, found + more)
    # A pixel is taken as a whole, which can cost up to one of them.
    depth = graph.tensors[1].shape[3]
    least = next(above for above in range(found + 1) if survives(accesses, above))
    assert found - least <= depth or found <= depth


def test_a_pool_that_halves_stays_behind_what_it_reads() -> None:
    assert distance(pool((1, 8, 8, 4), (1, 4, 4, 4), (2, 2), (2, 2))) == 4


def test_what_does_not_add_up_is_left_alone() -> None:
    good = pool((1, 8, 8, 4), (1, 4, 4, 4), (2, 2), (2, 2))
    assert distance(good) is not None
    for operand, result, window, stride in (
        ((1, 8, 8, 4), (1, 5, 4, 4), (2, 2), (2, 2)),
        ((2, 8, 8, 4), (1, 4, 4, 4), (2, 2), (2, 2)),
        ((1, 8, 8, 4), (1, 4, 4, 4), (0, 2), (2, 2)),
        ((1, 8, 8, 4), (1, 4, 4, 4), (2, 2), (0, 2)),
        ((1, 8, 8, 4), (1, 4, 4, 4), (2, 2), (-2, 2)),
        ((0, 8, 8, 4), (0, 4, 4, 4), (2, 2), (2, 2)),
        ((8, 8, 4), (4, 4, 4), (2, 2), (2, 2)),
        ((1, 1 << 16, 1 << 14, 1), (1, 1 << 15, 1 << 13, 1), (2, 2), (2, 2)),
    ):
        assert distance(pool(operand, result, window, stride)) is None, (operand, result)


def test_operators_without_what_they_need() -> None:
    graph = pool((1, 8, 8, 4), (1, 4, 4, 4), (2, 2), (2, 2))
    operator = graph.operators[0]
    for inputs in ((), (-1,)):
        assert window_distance(graph, replace(operator, inputs=inputs)) is None
    for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"):
        assert window_distance(graph, replace(operator, name=name)) is None
