"""Taps inside loops and branches, of TensorFlow 2 and of TensorFlow 1."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

import layertap  # noqa: E402
from layertap.core.dtypes import Array  # noqa: E402
from layertap.errors import Untappable  # noqa: E402

v1 = tf.compat.v1
ROWS = np.array([[1, -2, 3], [4, 5, -6]], np.float32)


@pytest.fixture(params=["functional", "classic"])
def generation(request: Any) -> Iterator[str]:
    """Loops and branches as nodes that run functions, or made of Switch and Merge."""
    if request.param == "functional":
        yield request.param
        return
    v1.disable_control_flow_v2()
    yield request.param
    v1.enable_control_flow_v2()


def graph_of(build: Callable[[Any], Any], shape: Sequence[int | None] = (None, 3)) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        build(v1.placeholder(tf.float32, shape, name="x"))
    return graph


def tap_of(model: layertap.Model, end: str) -> Any:
    """The tap whose name ends like this."""
    (found,) = (tap for tap in model.graph if f"/{tap.name}".endswith(f"/{end}"))
    return found


def test_one_value_per_iteration(generation: str) -> None:
    def build(x: Any) -> None:
        tf.while_loop(
            lambda i, _: i < 4,
            lambda i, h: (i + 1, tf.add(h, tf.cast(i, tf.float32), name="sum")),
            (0, x),
            name="loop",
        )

    with layertap.open(graph_of(build)) as model:
        tap = tap_of(model, "sum")
        count = 4 if generation == "functional" else None
        assert (tap.shape, tap.per) == ((count, None, 3), "sample")
        run = model.capture([ROWS, ROWS[:1]], tap.name)
        steps = np.stack([ROWS + total for total in (0, 1, 3, 6)], 1)
        np.testing.assert_array_equal(run[tap.name].raw, np.concatenate([steps, steps[:1]]))


def test_what_a_loop_starts_with_alone(generation: str) -> None:
    def build(x: Any) -> None:
        tf.while_loop(lambda i, _: i < 2, lambda i, h: (i + 1, h * 2), (0, x), name="loop")

    with layertap.open(graph_of(build)) as model:
        entering = [tap.name for tap in model.graph if tap.op == "Enter"]
        assert bool(entering) == (generation == "classic")
        for name in entering[1:]:
            np.testing.assert_array_equal(model.capture(ROWS, name)[name].raw, ROWS)


def test_iterations_that_depend_on_the_input_and_none_at_all(generation: str) -> None:
    def build(x: Any) -> None:
        tf.while_loop(
            lambda i, h: i < tf.cast(tf.reduce_max(h), tf.int32),
            lambda i, h: (i + 1, tf.multiply(h, 1.0, name="same")),
            (0, x),
            name="loop",
        )

    with layertap.open(graph_of(build)) as model:
        tap = tap_of(model, "same")
        run = model.capture([ROWS, ROWS - 9], tap.name)
        # How often it runs depends on all samples together, and is the same for each of a batch.
        shapes = [row.shape for row in run[tap.name].raw]
        assert shapes == [(5, 3)] * 2 + [(0, 3)] * 2


def test_a_branch_that_is_not_taken_has_no_row(generation: str) -> None:
    def build(x: Any) -> None:
        tf.cond(
            tf.reduce_sum(x) > 0,
            lambda: tf.add(x, 1.0, name="up"),
            lambda: tf.subtract(x, 1.0, name="down"),
            name="branch",
        )

    with layertap.open(graph_of(build)) as model:
        up, down = tap_of(model, "up").name, tap_of(model, "down").name
        run = model.capture([ROWS, -ROWS, ROWS], [up, down])
        np.testing.assert_array_equal(run[up].raw, np.concatenate([ROWS + 1, ROWS + 1]))
        assert run[up].samples.tolist() == [0, 1, 4, 5]
        np.testing.assert_array_equal(run[down].raw, -ROWS - 1)
        assert run[down].samples.tolist() == [2, 3]


def test_a_shape_that_grows_says_why_it_cannot_be_read(generation: str) -> None:
    def build(x: Any) -> None:
        anything = (tf.TensorShape(()), tf.TensorShape((None, None)))
        tf.while_loop(
            lambda i, _: i < 2,
            lambda i, h: (i + 1, tf.concat([h, h], 1, name="grown")),
            (0, x),
            shape_invariants=anything,
            name="loop",
        )

    with layertap.open(graph_of(build)) as model:
        tap = tap_of(model, "grown")
        with pytest.raises(Untappable, match="shape may change from one iteration to the next"):
            model.capture(ROWS, tap.name)
        assert len(model.capture(ROWS)) > 3  # everything else can


def test_map_over_the_samples_is_known_in_full() -> None:
    def build(x: Any) -> None:
        sums = tf.map_fn(lambda row: tf.reduce_sum(row, name="sum"), x, name="each")
        tf.multiply(sums, 2.0, name="doubled")

    with layertap.open(graph_of(build)) as model:
        assert model.graph["doubled"].per == "sample"
        run = model.capture(ROWS, "doubled | *body/sum")
        np.testing.assert_array_equal(run["doubled"].raw, ROWS.sum(1) * 2)
        np.testing.assert_array_equal(run["each/while/body/sum"].raw, [ROWS.sum(1)])


def test_types_that_lists_cannot_hold_say_so(generation: str) -> None:
    narrow = tf.dtypes.experimental.float8_e4m3fn

    def build(x: Any) -> None:
        def body(i: Any, h: Any) -> Any:
            return i + 1, tf.add(tf.cast(tf.cast(h, narrow, name="narrow"), h.dtype), 1, name="h")

        tf.while_loop(lambda i, _: i < 2, body, (0, x), name="loop")

    with layertap.open(graph_of(build)) as model:
        assert "float8_e4m3fn" in tap_of(model, "narrow").untappable
        assert tap_of(model, "h").name in model.capture(ROWS)


def test_one_of_several_branches() -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, 3)), tf.TensorSpec((), tf.int32)])
    def chosen(x: Any, which: Any) -> Any:
        ways = [lambda i=i: tf.multiply(x, float(i), name=f"times{i}") for i in range(3)]
        return tf.switch_case(which, ways, name="ways")

    with layertap.open(chosen) as model:
        run = model.capture({"x": ROWS, "which": np.int32(2)}, "*times*")
        rows = {name: len(capture) for name, capture in run.items()}
        assert rows == {
            "ways/indexed_case/branch0/times0": 0,
            "ways/indexed_case/branch1/times1": 0,
            "ways/indexed_case/branch2/times2": 2,
        }


def test_conditions_of_loops_say_why_not() -> None:
    def build(x: Any) -> None:
        tf.while_loop(lambda i: tf.less(i, 3, name="go_on"), lambda i: (i + 1,), (0,), name="loop")

    with layertap.open(graph_of(build)) as model, pytest.raises(Untappable, match="condition"):
        model.capture(ROWS, tap_of(model, "go_on").name)


def test_variables_are_assigned_inside_loops_on_copies() -> None:
    class Total(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.total = tf.Variable(0.0, name="total")

        @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32)])
        def __call__(self, x: Any) -> Any:
            for _ in tf.range(3):
                self.total.assign_add(1.0)
                x = tf.multiply(x, self.total, name="scaled")
            return x

    total = Total()
    with layertap.open(total) as model:
        tap = tap_of(model, "scaled")
        run = model.capture([ROWS, ROWS], tap.name)
        steps = np.stack([ROWS, ROWS * 2, ROWS * 6], 1)
        np.testing.assert_array_equal(run[tap.name].raw, np.concatenate([steps, steps]))
    assert total.total.numpy() == 0


Step = tuple[Any, ...]


def programs(depth: int = 2) -> st.SearchStrategy[list[Step]]:
    simple = st.sampled_from([("add",), ("mul",)])
    if not depth:
        return st.lists(simple, min_size=1, max_size=2)
    inner = programs(depth - 1)
    loop = st.tuples(st.just("loop"), st.integers(0, 3), inner)
    branch = st.tuples(st.just("branch"), inner, inner)
    return st.lists(st.one_of(simple, loop, branch), min_size=1, max_size=3)


class Meaning:
    """What a program computes, in NumPy: every value by the name of its step."""

    def __init__(self) -> None:
        self.values: dict[str, list[Array]] = {}
        self.loops: dict[str, list[bool]] = {}

    def run(self, steps: list[Step], h: Array, name: str, around: list[bool]) -> Array:
        for i, step in enumerate(steps):
            own = f"{name}_{i}"
            if step[0] in ("add", "mul"):
                h = h + np.float32(0.5) if step[0] == "add" else h * np.float32(-1)
                self.values.setdefault(own, []).append(h)
                self.loops[own] = around
            elif step[0] == "loop":
                self._unseen(step[2], own, [*around, True])
                for _ in range(step[1]):
                    h = self.run(step[2], h, own, [*around, True])
            else:
                self._unseen(step[1], f"{own}t", [*around, False])
                self._unseen(step[2], f"{own}e", [*around, False])
                taken = 1 if h.sum() > 0 else 2
                h = self.run(step[taken], h, own + "te"[taken - 1], [*around, False])
        return h

    def _unseen(self, steps: list[Step], name: str, around: list[bool]) -> None:
        """Know the steps of a scope that may never run."""
        for i, step in enumerate(steps):
            own = f"{name}_{i}"
            if step[0] in ("add", "mul"):
                self.values.setdefault(own, [])
                self.loops[own] = around
            elif step[0] == "loop":
                self._unseen(step[2], own, [*around, True])
            else:
                self._unseen(step[1], f"{own}t", [*around, False])
                self._unseen(step[2], f"{own}e", [*around, False])


def build(steps: list[Step], h: Any, name: str) -> Any:
    for i, step in enumerate(steps):
        own = f"{name}_{i}"
        if step[0] == "add":
            h = tf.add(h, 0.5, name=own)
        elif step[0] == "mul":
            h = tf.multiply(h, -1.0, name=own)
        elif step[0] == "loop":
            _, h = tf.while_loop(
                lambda k, _, step=step: k < step[1],
                lambda k, h, step=step, own=own: (k + 1, build(step[2], h, own)),
                (0, h),
                name=f"loop_{own}",
            )
        else:
            h = tf.cond(
                tf.reduce_sum(h) > 0,
                lambda step=step, h=h, own=own: build(step[1], h, f"{own}t"),
                lambda step=step, h=h, own=own: build(step[2], h, f"{own}e"),
                name=f"branch_{own}",
            )
    return h


@pytest.mark.slow
def test_random_nests_of_loops_and_branches(generation: str) -> None:
    @settings(
        max_examples=12,
        phases=[Phase.generate],  # each example compiles a graph: too slow to shrink
        suppress_health_check=list(HealthCheck),
    )
    @given(programs(), st.integers(0, 99))
    def check(steps: list[Step], seed: int) -> None:
        x = np.random.default_rng(seed).integers(-4, 5, (2, 3)).astype(np.float32)
        meaning = Meaning()
        meaning.run(steps, x, "s", [])
        graph = graph_of(lambda x: tf.identity(build(steps, x, "s"), name="result"))
        with layertap.open(graph) as model:
            taps = {name: tap_of(model, name) for name in meaning.values}
            # A run in which nothing at all has a value is an error: the result always has one.
            run = model.capture(x, [*(tap.name for tap in taps.values()), "result"])
            for name, each in meaning.values.items():
                _check(run[taps[name].name], each, meaning.loops[name])

    check()


def _check(capture: Any, each: list[Array], around: list[bool]) -> None:
    if not each and not (around and around[0]):
        assert not len(capture)
        return
    whole = np.stack(each) if each else np.empty((0, 2, 3))
    if not any(around):
        (whole,) = whole
    # Which way it takes, and how often, may depend on all samples together.
    rows = np.moveaxis(whole, -2, 0)
    expected = whole[None] if capture.tap.per == "batch" else rows
    np.testing.assert_array_equal(np.asarray(capture.raw), expected)
