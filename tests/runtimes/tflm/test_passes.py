"""Taps read in several passes, each of which runs in an arena of the given size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import layertap
from layertap.arena.passes import passes
from layertap.arena.price import TapCosts, prices
from layertap.arena.target import Target, load_target
from layertap.errors import ArenaExceeded, PlanError, RuntimeFailure, SourceError
from layertap.runtimes.tflm import TflmSession
from layertap.runtimes.tflm import session as session_module
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import parse

pytestmark = pytest.mark.slow  # starts a worker per arena

WIDTH = 256


def chain(length: int = 5) -> bytes:
    tensors = [TensorSpec(f"t{i}", (1, WIDTH)) for i in range(length + 1)]
    tensors.append(TensorSpec("one", (1,), data=np.ones(1, np.float32)))
    steps = [OperatorSpec("ADD", [i, length + 1], [i + 1]) for i in range(length)]
    return write_tflite(SubgraphSpec(tensors, [0], [length], steps))


def counting() -> bytes:
    """A variable grows by the input at each execution; what follows depends on it."""
    tensors = [
        TensorSpec("x", (1, WIDTH)),
        TensorSpec("handle", (1,), "resource"),
        TensorSpec("held", (1, WIDTH)),
        TensorSpec("grown", (1, WIDTH)),
        TensorSpec("twice", (1, WIDTH)),
        TensorSpec("out", (1, WIDTH)),
    ]
    steps = [
        OperatorSpec("CALL_ONCE", [], [], {0: 1}),
        OperatorSpec("VAR_HANDLE", [], [1], {0: "", 1: "v"}),
        OperatorSpec("READ_VARIABLE", [1], [2]),
        OperatorSpec("ADD", [2, 0], [3]),
        OperatorSpec("ASSIGN_VARIABLE", [1, 3], []),
        OperatorSpec("ADD", [3, 3], [4]),
        OperatorSpec("ADD", [4, 2], [5]),
    ]
    start = SubgraphSpec(
        [
            TensorSpec("handle", (1,), "resource"),
            TensorSpec("five", (1, WIDTH), data=np.full((1, WIDTH), 5, np.float32)),
        ],
        [],
        [],
        [
            OperatorSpec("VAR_HANDLE", [], [0], {0: "", 1: "v"}),
            OperatorSpec("ASSIGN_VARIABLE", [0, 1], []),
        ],
    )
    return write_tflite(SubgraphSpec(tensors, [0], [5], steps), start)


def smallest(data: bytes, names: list[str]) -> int:
    """The arena in which each of the taps fits alone."""
    costs = TapCosts(parse(data), load_target())
    return max(
        costs.minimum([p.index]) for p in prices(costs.model, costs.target) if p.name in names
    )


def same(run: layertap.Run, other: layertap.Run) -> None:
    assert list(run) == list(other)
    for name in run:
        assert run[name].raw.tobytes() == other[name].raw.tobytes(), name


def test_a_small_arena_takes_several_passes_and_gives_the_same_values() -> None:
    data, names = chain(), ["t1", "t2", "t3", "t4", "t5"]
    x = np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)
    with layertap.open(data, runtime="tflm") as model:
        whole = model.capture(x, taps="*", keep_inputs=True)
        assert len(model.plan("*").passes) == 1
    arena = smallest(data, names)
    with layertap.open(data, runtime="tflm", arena=arena) as model:
        plan = model.plan("*")
        assert len(plan.passes) > 1
        assert "passes" in str(plan)
        assert [t.name for group in plan.passes for t in group].count("t3") == 1
        same(model.capture(x, taps="*", keep_inputs=True), whole)


def test_a_few_bytes_less_are_refused_before_anything_runs() -> None:
    data = chain()
    arena = smallest(data, ["t1", "t2", "t3", "t4"])
    with layertap.open(data, runtime="tflm", arena=arena - 16) as model:
        with pytest.raises(ArenaExceeded, match="16 more than") as caught:
            model.plan("*")
        assert caught.value.needed == arena
        assert isinstance(model.session, TflmSession)
        assert model.session.worker.pid is None
        assert model.plan("t5").passes


def test_inputs_go_with_the_first_pass_and_weights_with_none() -> None:
    data = chain()
    with layertap.open(data, runtime="tflm", arena=smallest(data, ["t1"])) as model:
        graph = model.graph
        assert isinstance(model.session, TflmSession)
        groups = model.session.group([graph["t0"], graph["t1"], graph["t2"]])
        assert [[tap.name for tap in group] for group in groups] == [["t0", "t1"], ["t2"]]
        assert model.session.group([graph["t0"]]) == [[graph["t0"]]]
        plan = model.plan(["one", "t1"])
        assert [[tap.name for tap in group] for group in plan.passes] == [["t1"]]


@pytest.mark.parametrize("keep_state", [False, True])
def test_each_pass_sees_the_same_state(keep_state: bool) -> None:
    data = counting()
    x = np.random.default_rng(1).normal(size=(4, WIDTH)).astype(np.float32)
    with layertap.open(data, runtime="tflm", keep_state=keep_state) as model:
        whole = model.capture(x)
    arena = smallest(data, list(whole))
    with layertap.open(data, runtime="tflm", keep_state=keep_state, arena=arena) as model:
        assert len(model.plan().passes) > 1
        run = model.capture(x)
    same(run, whole)
    held = 5 + np.cumsum(np.vstack([np.zeros((1, WIDTH), np.float32), x[:-1]]), axis=0)
    expected = held if keep_state else np.full_like(x, 5)
    np.testing.assert_allclose(run["held"].raw, expected, rtol=1e-5)


def test_passes_planned_for_a_chip() -> None:
    """Its structures are smaller; the arena on the host is as large as it needs."""
    data = chain(12)
    target = load_target("cortex-m")
    arena = TapCosts(parse(data), target).minimum(range(1, 13))
    x = np.ones((1, WIDTH), np.float32)
    with layertap.open(data, runtime="tflm") as model:
        whole = model.capture(x)
    with layertap.open(data, runtime="tflm", arena=arena, target="cortex-m") as model:
        groups = passes(parse(data), target, range(1, 13), arena).groups
        assert [tuple(tap.index for tap in group) for group in model.plan().passes] == list(groups)
        facts = model.session.provenance
        assert facts["arena"] == "automatic"
        assert facts["planned_for"] == {"target": "cortex-m", "arena": arena}
        same(model.capture(x), whole)
    with layertap.open(data, runtime="tflm", arena=arena) as model:
        assert len(model.plan().passes) > len(groups)


def test_where_no_table_helps_trying_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsure(name: str = "host") -> Target:
        return replace(load_target(name), guess="nobody knows this version")

    data = chain()
    x = np.ones((1, WIDTH), np.float32)
    arena = smallest(data, ["t1", "t2", "t3", "t4"])
    with layertap.open(data, runtime="tflm", arena=arena) as model:
        plan, whole = model.plan(), model.capture(x)
    monkeypatch.setattr(session_module, "load_target", unsure)
    with layertap.open(data, runtime="tflm", arena=arena) as model:
        assert len(model.plan().passes) == len(plan.passes)
        same(model.capture(x), whole)
    with (
        layertap.open(data, runtime="tflm", arena=arena, target="cortex-m") as model,
        pytest.raises(PlanError, match="not known: nobody knows this version"),
    ):
        model.plan()


def test_a_tap_that_does_not_fit_when_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prediction says that it fits, and is not believed."""
    data = chain()
    arena = smallest(data, ["t1", "t2", "t3", "t4"])
    small = replace(load_target(), guess="a version with larger structures")
    small = replace(small, structs=dict.fromkeys(small.structs, (4, 4)))
    monkeypatch.setattr(session_module, "load_target", lambda name: small)
    with (
        layertap.open(data, runtime="tflm", arena=arena - 32) as model,
        pytest.raises(PlanError, match="bytes is too small for 't"),
    ):
        model.plan()


def test_the_arena_is_given_as_for_chips() -> None:
    with layertap.open(chain(), runtime="tflm", arena="96K") as model:
        assert model.session.provenance["arena"] == 96 * 1024
    with pytest.raises(SourceError, match="no arena to plan for 'cortex-m'"):
        layertap.open(chain(), runtime="tflm", target="cortex-m")
    with pytest.raises(SourceError, match="no target 'z80'"):
        layertap.open(chain(), runtime="tflm", arena=1, target="z80")


def test_an_arena_of_the_wrong_size_is_a_failure_of_the_pass() -> None:
    """Whoever prepares a pass without grouping gets what the interpreter says."""
    data = chain()
    with layertap.open(data, runtime="tflm", arena=smallest(data, ["t1"])) as model:
        assert isinstance(model.session, TflmSession)
        with pytest.raises(RuntimeFailure, match="is too small for this model and these taps"):
            model.session.prepare([tap for tap in model.graph if tap.kind == "activation"])


@pytest.mark.slow
def test_shared_models_in_small_arenas(shared: Path) -> None:
    for path in sorted(shared.glob("models/*/*.tflite")):
        if path.stem == "kws_float":
            continue  # the micro interpreter refuses it
        data = path.read_bytes()
        rng = np.random.default_rng(0)
        with layertap.open(path, runtime="tflm", keep_state=True) as model:
            feed = {
                spec.name: (rng.normal(size=spec.shape) * 40).astype(spec.dtype)
                for spec in model.session.inputs
                if spec.shape is not None
            }
            whole = model.capture(feed)
        costs = TapCosts(parse(data), load_target())
        least = smallest(data, list(whole))
        most = costs.minimum([tap.index for tap in whole.taps])
        for arena in sorted({least, (3 * least + most) // 4, most}):
            with layertap.open(path, runtime="tflm", arena=arena, keep_state=True) as model:
                same(model.capture(feed), whole)
