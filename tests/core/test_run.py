"""The engine, on a runtime small enough to see through: y = 2x, z = y + 1, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from layertap.core.captures import Run
from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, InputSpec, make_feeds
from layertap.core.graph import Graph, TapPoint
from layertap.core.plan import make_plan
from layertap.core.protocols import Capabilities, Emit, Pass, Wanted
from layertap.core.run import Progress, Settings, execute
from layertap.errors import BudgetExceeded, FeedError, RunError, Untappable
from layertap.store.memory import MemoryStore

TAPS = (
    TapPoint("x", "input", "", "float64", (None, 3), 0),
    TapPoint("w", "weight", "", "float64", (1,), 1, per="run"),
    TapPoint("y", "activation", "MUL", "float64", (None, 3), 2, operands=("x", "w")),
    TapPoint("total", "activation", "SUM", "float64", (3,), 3, per="batch", operands=("y",)),
    TapPoint("z", "output", "ADD", "float64", (None, 3), 4, operands=("y",)),
    TapPoint("handle", "activation", "VAR_HANDLE", "resource", (), 5, untappable="a handle"),
)


class Doubler:
    def __init__(self, taps_per_pass: int | None = None, **able: Any) -> None:
        self.together = taps_per_pass or len(TAPS)
        self.graph = Graph(TAPS)
        self.inputs = (InputSpec("x", "float64", (None, 3)),)
        self.capabilities = Capabilities(**able)
        self.provenance: Mapping[str, Any] = {"runtime": "numpy"}
        self.sizes: list[int] = []
        self.prepared: list[list[str]] = []

    @property
    def axes(self) -> Mapping[str, str]:
        return {}

    def trace(self, feed: Feed, wanted: Wanted | None = None) -> Graph:
        return self.graph

    def read(self, tap: TapPoint) -> Array:
        return np.array([2.0])

    def prepare(self, taps: Sequence[TapPoint]) -> Pass:
        self.prepared.append([tap.name for tap in taps])

        def run(feed: Feed, emit: Emit) -> None:
            y = np.asarray(feed["x"]) * 2
            self.sizes.append(len(y))
            values = {"x": feed["x"], "y": y, "total": y.sum(0), "z": y + 1}
            for tap in taps:
                emit(tap, np.array(values[tap.name])[None])

        return run

    def group(self, taps: Sequence[TapPoint]) -> list[Sequence[TapPoint]]:
        return [taps[i : i + self.together] for i in range(0, len(taps), self.together)]

    def close(self) -> None:
        pass


X = np.arange(24.0).reshape(8, 3)


def capture(session: Doubler, x: Any = X, batch_size: int | None = None, **options: Any) -> Run:
    feeds = make_feeds(x, session.inputs, batch_size=batch_size)
    taps = [tap for tap in TAPS if not tap.untappable]
    plan = make_plan(taps, group=session.group)
    sink = MemoryStore(plan.taps, session.provenance)
    execute(session, plan, feeds, sink, Settings(**options))
    return sink.run()


@pytest.mark.parametrize("batch_size", [None, 1, 3, 8])
@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("taps_per_pass", [None, 1, 2])
def test_rows_are_the_same_however_the_work_is_cut(
    batch_size: int | None, batch: int | None, taps_per_pass: int | None
) -> None:
    session = Doubler(batch=batch, taps_per_pass=taps_per_pass)
    run = capture(session, batch_size=batch_size)
    assert run.samples == 8
    np.testing.assert_array_equal(run["y"].raw, X * 2)
    np.testing.assert_array_equal(run["z"].values, X * 2 + 1)
    np.testing.assert_array_equal(run["w"].raw, [2.0])
    np.testing.assert_array_equal(run["total"].raw.sum(0), (X * 2).sum(0))
    np.testing.assert_array_equal(run["y"].samples, np.arange(8))
    assert len(session.prepared) == {None: 1, 1: 4, 2: 2}[taps_per_pass]
    assert all(size <= (batch or batch_size or 8) for size in session.sizes)


def test_a_fixed_batch_must_divide_the_samples() -> None:
    with pytest.raises(FeedError, match="exactly 3 at a time"):
        capture(Doubler(batch=3))


def test_progress_counts() -> None:
    seen: list[Progress] = []
    capture(Doubler(), batch_size=3, on_progress=seen.append)
    assert [p.samples for p in seen] == [3, 6, 8]
    assert [p.batches for p in seen] == [1, 2, 3]
    assert seen[-1].total_samples == 8
    assert seen[-1].total_batches == 3
    assert seen[-1].bytes == 8 * 3 * 8 * 3 + 3 * 24 + 8


def test_budget_stops_as_soon_as_it_is_passed() -> None:
    with pytest.raises(BudgetExceeded) as caught:
        capture(Doubler(), (X for _ in range(1000)), budget=10_000)
    assert caught.value.available == 10_000
    assert 10_000 < caught.value.needed < 11_000


def test_plan_counts_bytes_exactly() -> None:
    plan = make_plan([tap for tap in TAPS if not tap.untappable], samples=8, batches=2)
    assert plan.sample_bytes == 3 * 24
    assert plan.total_bytes == 8 * 72 + 2 * 24 + 8
    plan.check(8 * 72 + 56)
    with pytest.raises(BudgetExceeded, match="632 bytes, the budget is 631"):
        plan.check(631)


def test_untappable_is_refused_with_its_reason() -> None:
    with pytest.raises(Untappable, match="a handle"):
        make_plan(TAPS)


def test_what_was_committed_survives_an_interrupt() -> None:
    session = Doubler()

    def batches() -> Any:
        yield X
        yield X
        raise KeyboardInterrupt

    plan = make_plan(TAPS[2:3])
    sink = MemoryStore(plan.taps, {})
    with pytest.raises(KeyboardInterrupt):
        execute(session, plan, make_feeds(batches(), session.inputs), sink)
    run = sink.run()
    assert not run.complete
    assert run.samples == len(run["y"]) == 16


def test_an_empty_input_is_an_error() -> None:
    for empty in ([], X[:0]):
        with pytest.raises(FeedError, match="no samples"):
            capture(Doubler(), empty)


@pytest.mark.parametrize("batch_size", [8, 3])
def test_a_first_axis_that_does_not_count_samples_is_not_mistaken_for_one(batch_size: int) -> None:
    session = Doubler()
    wrong = TapPoint("total", "activation", "SUM", "float64", (3,), 3)
    sink = MemoryStore([wrong], {})
    feeds = make_feeds(X, session.inputs, batch_size=batch_size)
    execute(session, make_plan([wrong]), feeds, sink)
    total = sink.run()["total"]
    assert total.tap.per == "batch"
    expected = [2 * X[i : i + batch_size].sum(0) for i in range(0, 8, batch_size)]
    np.testing.assert_array_equal(total.raw, expected)
    assert sink.run().provenance["demoted"] == ["total"]


class Sometimes(Doubler):
    """Emits ``y`` only for pieces whose sum is even: a data-dependent branch."""

    def prepare(self, taps: Sequence[TapPoint]) -> Pass:
        def run(feed: Feed, emit: Emit) -> None:
            for tap in taps:
                if tap.name == "z" or feed["x"].sum() % 2 == 0:
                    emit(tap, np.array(feed["x"])[None])

        return run


def test_rows_know_their_sample_when_a_tap_appears_in_some_pieces_only() -> None:
    session = Sometimes(batch=1)
    x = np.array([[1.0, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0], [6, 0, 0]])
    plan = make_plan([TAPS[2], TAPS[4]])
    sink = MemoryStore(plan.taps, {})
    execute(session, plan, make_feeds(x, session.inputs, batch_size=3), sink)
    run = sink.run()
    np.testing.assert_array_equal(run["y"].samples, [1, 3, 4])
    np.testing.assert_array_equal(run["y"].raw[:, 0], [2, 4, 6])
    np.testing.assert_array_equal(run["z"].samples, np.arange(5))


def test_a_run_in_which_nothing_was_called_is_an_error() -> None:
    session, x = Sometimes(batch=1), np.array([[1.0, 0, 0], [3, 0, 0], [4, 0, 0]])
    branch = TAPS[2]

    def rows(x: Array, *taps: TapPoint) -> list[int]:
        sink = MemoryStore(taps, {})
        execute(session, make_plan(taps), make_feeds(x, session.inputs), sink)
        return [len(capture) for capture in sink.run().values()]

    with pytest.raises(RunError, match="'y' has no value") as caught:
        rows(x[:2], TAPS[1], branch)
    assert "branch" in caught.value.hint
    assert rows(x, branch) == [1]
    assert rows(x[:2], branch, TAPS[4]) == [0, 2]
    assert rows(x[:2], TAPS[1]) == [1]


class Counting(Doubler):
    """Counts its executions since it was prepared."""

    observed: Mapping[str, int] = {}

    def prepare(self, taps: Sequence[TapPoint]) -> Pass:
        run, counts = super().prepare(taps), {"executions": 0}
        self.observed = counts

        def counted(feed: Feed, emit: Emit) -> None:
            counts["executions"] += 1
            run(feed, emit)

        return counted


def test_what_a_session_observed_is_in_the_provenance_also_when_it_failed() -> None:
    assert capture(Counting(batch=2)).provenance["observed"] == {"executions": 4}
    assert "observed" not in capture(Doubler()).provenance
    session = Counting(batch=2)
    sink = MemoryStore(TAPS[2:3], {})
    with pytest.raises(BudgetExceeded):
        execute(
            session, make_plan(TAPS[2:3]), make_feeds(X, session.inputs), sink, Settings(budget=50)
        )
    assert sink.run().provenance["observed"] == {"executions": 2}
