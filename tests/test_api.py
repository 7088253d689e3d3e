"""Open, plan, capture and load, wired together on a model in plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import layertap
from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, InputSpec
from layertap.core.graph import Graph, TapPoint
from layertap.core.protocols import Capabilities, Emit, Pass, Wanted
from layertap.errors import (
    BudgetExceeded,
    FeedError,
    LayertapError,
    SelectionError,
    SourceError,
    StoreError,
    UnknownSource,
)

X = np.arange(24.0).reshape(8, 3)


class Scale:
    """y = weight * x. Its graph is complete only after an example."""

    def __init__(self, weight: float = 2.0) -> None:
        self.weight = np.array([weight])
        self.inputs = (InputSpec("x", "float64", (None, 3)),)
        self.capabilities = Capabilities(traced=True)
        self.provenance = {"runtime": "scale", "model": {"sha256": None, "type": "Scale"}}
        self.graph = self._graph(None)

    def _graph(self, shape: tuple[int | None, ...] | None) -> Graph:
        taps = [
            TapPoint("x", "input", "", "float64", (None, 3), 0),
            TapPoint("weight", "weight", "", "float64", (1,), 1, per="run"),
            TapPoint("y", "output", "MUL", "float64", shape, 2, operands=("x", "weight")),
        ]
        return Graph(taps, complete=shape is not None)

    @property
    def axes(self) -> Mapping[str, str]:
        return {}

    def trace(self, feed: Feed, wanted: Wanted | None = None) -> Graph:
        self.graph = self._graph((None, *feed["x"].shape[1:]))
        return self.graph

    def read(self, tap: TapPoint) -> Array:
        return self.weight.copy()

    def prepare(self, taps: Sequence[TapPoint]) -> Pass:
        def run(feed: Feed, emit: Emit) -> None:
            for tap in taps:
                emit(tap, (feed["x"] * (self.weight if tap.name == "y" else 1))[None])

        return run

    def close(self) -> None:
        pass


def test_plan_needs_no_run_and_knows_every_byte() -> None:
    model = layertap.Model(Scale())
    assert model.plan("y").total_bytes is None
    assert model.plan("y", X).total_bytes == 8 * 3 * 8
    assert model.plan("y", X[:1], samples=1000).total_bytes == 1000 * 24
    assert model.plan(["y", "weight"], X).total_bytes == 8 * 24 + 8
    with pytest.raises(BudgetExceeded):
        model.plan("y", X, budget="0.1K")
    with pytest.raises(LayertapError, match="is not a size"):
        model.plan("y", X, budget="lots")


def test_a_budget_may_be_any_number() -> None:
    with pytest.raises(BudgetExceeded):
        layertap.Model(Scale()).capture(X, budget=1e2)


def test_weights_are_read_one_by_one() -> None:
    model = layertap.Model(Scale())
    assert model.read("weight").tolist() == [2.0]
    assert model.read("kind:weight").tolist() == [2.0]
    with pytest.raises(SelectionError, match="2 tap points") as caught:
        model.read("kind:weight | kind:input")
    assert "x, weight" in caught.value.hint


def test_inputs_are_kept_on_request(tmp_path: Path) -> None:
    model = layertap.Model(Scale())
    for to in (None, tmp_path / "run.zarr"):
        run = model.capture(X, "y", to=to, keep_inputs=True)
        np.testing.assert_array_equal(run["x"].raw, X)
        np.testing.assert_array_equal(run["y"].raw, 2 * X)


def test_what_was_interrupted_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"

    def batches(stop: int):
        for i in range(4):
            if i == stop:
                raise KeyboardInterrupt
            yield X + i

    model = layertap.Model(Scale())
    with pytest.raises(KeyboardInterrupt):
        model.capture(batches(2), "y", to=path)
    part = layertap.load(path)
    assert (part.samples, part.complete) == (16, False)
    whole = model.capture(batches(9), "y", to=path, resume=True)
    assert (whole.samples, whole.complete) == (32, True)
    np.testing.assert_array_equal(whole["y"].raw, np.concatenate([2 * (X + i) for i in range(4)]))


def test_a_model_with_other_weights_does_not_go_on(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    layertap.Model(Scale(2.0)).capture(X, "y", to=path)
    with pytest.raises(StoreError, match="differs in model"):
        layertap.Model(Scale(3.0)).capture(X, "y", to=path, resume=True)
    with pytest.raises(StoreError, match="already"):
        layertap.Model(Scale()).capture(X, "y", to=path)
    run = layertap.Model(Scale(3.0)).capture(X, "y", to=path, overwrite=True)
    np.testing.assert_array_equal(run["y"].raw, 3 * X)


def test_sources_that_cannot_be_opened(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("no model")
    with pytest.raises(SourceError, match="there is no file"):
        layertap.open(tmp_path / "absent.tflite")
    with pytest.raises(UnknownSource, match=r"files end in one of .*\.tflite"):
        layertap.open(other)
    with pytest.raises(UnknownSource, match="no runtime opens a builtins"):
        layertap.open(object())
    with pytest.raises(UnknownSource, match=r"it is one of keras, .*, tflm, device"):
        layertap.open(other, runtime="caffe")
    for path in ("m.tflite", "m.pt"):
        with pytest.raises(SourceError, match=r"only live models .* not a file"):
            layertap.attach(str(tmp_path / path))
    with pytest.raises(SourceError, match="a object is no file"):
        layertap.open(object(), runtime="tflm")
    with pytest.raises(StoreError, match="there is no run"):
        layertap.load(tmp_path / "absent.zarr")


def test_an_example_without_samples_is_refused() -> None:
    with pytest.raises(FeedError, match="no samples"):
        layertap.Model(Scale()).trace(X[:0])
