"""Optimized models: they run, they give the same values, and they take what was promised."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as generated
from hypothesis import HealthCheck, given, settings
from tflite_micro import runtime

import layertap
from layertap.arena.optimize import Layout
from layertap.errors import (
    CorruptModel,
    FeedError,
    PlanError,
    RuntimeFailure,
    SourceError,
    StoreError,
)
from layertap.runtimes.registry import Runtime
from layertap.runtimes.tflm import TflmSession
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.testing.tflite_cases import KnownModel, known_model, known_models
from layertap.tflite.edit import OFFLINE_PLAN, with_outputs
from layertap.tflite.model import parse
from layertap.tflite.relayout import with_layout

WHEEL = Path(__file__).parent / "arena" / "wheel_worker.py"
SHARINGS = ("none", "in-place", "overlapping")
SIZE = 1024


def chain(*names: str) -> SubgraphSpec:
    tensors = [TensorSpec(f"t{i}", (1, SIZE // 4)) for i in range(len(names) + 1)]
    operators = [OperatorSpec(name, [i], [i + 1]) for i, name in enumerate(names)]
    return SubgraphSpec(tensors, [0], [len(names)], operators)


NOTE = {"sharing": "none", "kernels": "reference"}
SIMPLE = write_tflite(chain("RELU", "NEG", "ABS"))


def micro(data: bytes, feed: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Every output by its name, as the wheel computes it."""
    graph = parse(data).subgraphs[0]
    interpreter = runtime.Interpreter.from_bytes(data, arena_size=1 << 22)
    for position, i in enumerate(graph.inputs):
        interpreter.set_input(feed[graph.tensors[i].name], position)
    interpreter.invoke()
    return {
        graph.tensors[i].name: interpreter.get_output(n).tobytes()
        for n, i in enumerate(graph.outputs)
    }


def random_feed(data: bytes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    feed = {}
    for spec in TflmSession(data).inputs:
        kind = np.dtype(spec.dtype)
        bits = rng.integers(0, 256, (*spec.shape[:-1], spec.shape[-1] * kind.itemsize), np.uint8)
        values = rng.normal(size=spec.shape) if kind.kind == "f" else bits.view(kind)
        feed[spec.name] = values.astype(kind)
    return feed


def everything_tapped(old: bytes, new: bytes, feed: Mapping[str, np.ndarray]) -> None:
    """Every result of an operator, alone and with all others, is what it was."""
    tensors = parse(old).subgraphs[0]
    taps = sorted({i for operator in tensors.operators for i in operator.outputs})
    expected = micro(with_outputs(old, taps), feed)
    assert micro(with_outputs(new, taps), feed) == expected
    for tap in taps:
        found = micro(with_outputs(new, [tap]), feed)
        assert found == {name: expected[name] for name in found}


def allocated(models: Mapping[str, bytes], folder: Path) -> dict[str, dict[str, Any]]:
    """What the interpreter of the wheel prints about each of them."""
    requests = []
    for name, data in models.items():
        (folder / name).write_bytes(data)
        requests.append(json.dumps({"path": str(folder / name), "arena": 1 << 22}))
    done = subprocess.run(
        [sys.executable, str(WHEEL)],
        input="\n".join(requests) + "\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return dict(zip(models, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.slow
def test_a_model_becomes_smaller() -> None:
    found = layertap.optimize(SIMPLE)
    assert found.changed
    assert (found.verified, found.unverified) == (4, "")
    assert (found.before.arena.head, found.after.arena.head) == (2 * SIZE, SIZE)
    assert found.saved == SIZE
    assert found.layout.optimal
    assert [shared.op for shared in found.layout.shared] == ["RELU", "NEG", "ABS"]


def test_what_cannot_be_better_is_left_alone() -> None:
    found = layertap.optimize(SIMPLE, sharing="none")
    assert not found.changed
    assert found.data is SIMPLE
    assert found.before is found.after
    assert found.saved == 0
    assert found.layout.optimal


@pytest.mark.slow
def test_a_layout_that_is_there_is_replaced() -> None:
    spread = with_layout(SIMPLE, [0, SIZE, 2 * SIZE, 3 * SIZE])
    found = layertap.optimize(spread, sharing="none")
    assert (found.before.arena.head, found.after.arena.head) == (4 * SIZE, 2 * SIZE)
    assert found.verified
    again = layertap.optimize(with_layout(found.data, [0, SIZE, 2 * SIZE, 3 * SIZE], NOTE))
    assert len(again.data) == len(found.data)


def test_a_layout_that_is_better_stays() -> None:
    small = layertap.optimize(SIMPLE, verify=False).data
    again = layertap.optimize(small)
    assert not again.changed
    assert again.data is small


def note(data: bytes) -> dict[str, str]:
    """What a file says of its layout, read with TensorFlow's own classes."""
    found = generated.ModelT.InitFromPackedBuf(data, 0)
    (entry,) = (one for one in found.metadata if one.name == b"layertap.layout")
    told: dict[str, str] = json.loads(bytes(found.buffers[entry.buffer].data))
    return told


@pytest.mark.slow
def test_a_layout_that_shares_more_than_it_may_is_given_up() -> None:
    """Also where that takes more memory, and whoever made it."""
    small = layertap.optimize(SIMPLE, verify=False).data
    assert note(small) == {"sharing": "in-place", "kernels": "reference"}
    for layout in (small, with_layout(SIMPLE, [0, 0, 0, 0])):
        apart = layertap.optimize(layout, sharing="none")
        assert apart.changed
        assert apart.verified == 4
        assert apart.saved == -SIZE
        assert apart.after.overlaps.kind == "none"
        assert note(apart.data) == {"sharing": "none", "kernels": "reference"}
    # All of these operators have kernels of their own in one library, the last in another, too.
    assert layertap.optimize(small, kernels="cmsis_nn").changed is False
    with_own = write_tflite(chain("RELU", "LOGISTIC"))
    shared = layertap.optimize(with_own, verify=False)
    assert note(shared.data)["sharing"] == "in-place"
    for kernels, saved in (("cmsis_nn", 0), ("xtensa", -SIZE)):
        again = layertap.optimize(shared.data, kernels=kernels, verify=False)
        assert (again.changed, again.saved) == (saved != 0, saved)
    assert note(again.data) == {"sharing": "none", "kernels": "xtensa"}


@pytest.mark.slow
def test_a_layout_that_gives_wrong_values_is_no_measure() -> None:
    """The operand of an addition is overwritten; right is what the file without a layout gives."""
    tensors = [TensorSpec(f"t{i}", (1, 16)) for i in range(4)]
    operators = [OperatorSpec("EXP", [0], [1]), OperatorSpec("NEG", [1], [2])]
    operators.append(OperatorSpec("ADD", [1, 2], [3]))
    data = write_tflite(SubgraphSpec(tensors, [0], [3], operators))
    broken = with_layout(data, [64, 0, 0, 128])
    feed = {"t0": np.linspace(1, 2, 16, dtype=np.float32)[None]}
    assert micro(broken, feed) != micro(data, feed)
    found = layertap.optimize(broken)
    assert (found.changed, found.verified) == (True, 4)
    assert micro(found.data, feed) == micro(data, feed)


def test_the_layout_of_an_accelerator_is_not_ours() -> None:
    layout = struct.pack("<5i", 1, 1, 2, 0, 0)
    graph = chain("ethos-u")
    data = write_tflite(graph, metadata={OFFLINE_PLAN: layout})
    with pytest.raises(PlanError, match="made for its operator 'ethos-u'"):
        layertap.optimize(data)


def test_a_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(CorruptModel):
        layertap.optimize(SIMPLE[:100])
    with pytest.raises(SourceError, match="cannot be read"):
        layertap.optimize(tmp_path / "missing.tflite")


def test_without_the_interpreter_nothing_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "missing", lambda self: "tflite_micro")
    found = layertap.optimize(SIMPLE)
    assert found.changed
    assert found.verified == 0
    assert "tflite_micro" in found.unverified


@pytest.mark.slow
def test_a_model_that_cannot_run_is_not_proven() -> None:
    graph = chain("RELU", "my_op")
    tensors = [*graph.tensors[:2], TensorSpec("t2", (1, 4))]
    found = layertap.optimize(write_tflite(SubgraphSpec(tensors, [0], [2], graph.operators)))
    assert found.changed
    assert found.verified == 0
    assert "my_op" in found.unverified


def test_what_cannot_be_fed_or_compared_is_not_proven() -> None:
    graph = chain("RELU", "NEG", "ABS")

    def optimized(more: TensorSpec, inputs: list[int], outputs: list[int]) -> tuple[int, str]:
        cast = [OperatorSpec("CAST", [3], [4])] if 4 in outputs else []
        tensors, operators = [*graph.tensors, more], [*graph.operators, *cast]
        found = layertap.optimize(write_tflite(SubgraphSpec(tensors, inputs, outputs, operators)))
        assert found.changed
        return found.verified, found.unverified

    text = TensorSpec("text", (1, 2), "string")
    assert optimized(text, [0, 4], [3]) == (0, "its input 'text' holds string, not numbers")
    codes = TensorSpec("codes", (1, SIZE // 4), "int4")
    assert optimized(codes, [0], [4]) == (0, "none of its outputs can be read")


def test_without_verifying() -> None:
    found = layertap.optimize(SIMPLE, verify=False)
    assert (found.changed, found.verified, found.unverified) == (True, 0, "not asked for")


@pytest.mark.slow
def test_own_inputs() -> None:
    x = np.random.default_rng(0).normal(size=(7, SIZE // 4)).astype(np.float32)
    assert layertap.optimize(SIMPLE, x=x).verified == 7
    assert layertap.optimize(SIMPLE, x=iter([x[:1], x[1:2]])).verified == 2
    with pytest.raises(FeedError):
        layertap.optimize(SIMPLE, x=x[:, :3])


@pytest.mark.slow
def test_a_wrong_layout_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operand of an addition is overwritten by something that is computed before it."""
    tensors = [TensorSpec(f"t{i}", (1, 16)) for i in range(4)]
    operators = [OperatorSpec("EXP", [0], [1]), OperatorSpec("NEG", [1], [2])]
    operators.append(OperatorSpec("ADD", [0, 2], [3]))
    data = write_tflite(SubgraphSpec(tensors, [0], [3], operators))

    def wrong(*_: Any, **__: Any) -> Layout:
        return Layout((0, 0, 0, 0), 64, 192, 64, 192, (), "first fit")

    monkeypatch.setattr("layertap.shrink.best_layout", wrong)
    with pytest.raises(PlanError, match="'t0' and 't1' share bytes while both are needed"):
        layertap.optimize(data)
    monkeypatch.setattr("layertap.arena.shared.check_layout", lambda _: None)
    with pytest.raises(RuntimeFailure, match="other values for 't3'"):
        layertap.optimize(data)


def test_writing(tmp_path: Path) -> None:
    source, target = tmp_path / "model.tflite", tmp_path / "new.tflite"
    source.write_bytes(SIMPLE)
    found = layertap.optimize(source, verify=False)
    target.write_bytes(b"old")
    found.write(target)
    assert target.read_bytes() == found.data
    assert target.stat().st_mode == source.stat().st_mode
    for same in (source, tmp_path / "." / "model.tflite"):
        with pytest.raises(StoreError, match="is the model itself"):
            found.write(same)
    with pytest.raises(StoreError, match="cannot be written"):
        found.write(tmp_path / "missing" / "new.tflite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.tflite", "new.tflite"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new.tflite"
    target.write_bytes(b"old")

    def full(self: Path, other: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        layertap.optimize(SIMPLE, verify=False).write(target)
    assert [path.name for path in tmp_path.iterdir()] == ["new.tflite"]
    assert target.read_bytes() == b"old"


def test_the_same_file_every_time() -> None:
    first, second = (layertap.optimize(SIMPLE, verify=False) for _ in range(2))
    assert first.data == second.data


@pytest.mark.slow
@pytest.mark.parametrize("sharing", SHARINGS)
def test_known_values(sharing: Any) -> None:
    known = known_model()
    found = layertap.optimize(known.data, sharing=sharing)
    assert micro(found.data, known.feed) == {
        name: known.oracle[name].tobytes() for name in known.outputs
    }
    everything_tapped(known.data, found.data, known.feed)


def loop() -> bytes:
    """Four times round a loop: v becomes the exponential of its half's negative."""

    def tensors(*more: TensorSpec) -> list[TensorSpec]:
        return [TensorSpec("i", (1,), "int32"), TensorSpec("v", (1, SIZE // 4)), *more]

    values = {name: TensorSpec(name, (1, SIZE // 4)) for name in ("halves", "negative", "power")}
    one = TensorSpec("one", (1,), "int32", np.ones(1, np.int32))
    four = TensorSpec("four", (1,), "int32", np.full(1, 4, np.int32))
    half = TensorSpec("half", (1,), data=np.full(1, 0.5, np.float32))
    count, go = TensorSpec("count", (1,), "int32"), TensorSpec("go", (1,), "bool")
    main = SubgraphSpec(
        tensors(*(TensorSpec(f"{t.name}'", t.shape, t.dtype) for t in tensors()), half),
        [0, 1],
        [3],
        [OperatorSpec("WHILE", [0, 1], [2, 3], {0: 1, 1: 2})],
    )
    cond = SubgraphSpec(tensors(four, go), [0, 1], [3], [OperatorSpec("LESS", [0, 2], [3])])
    steps = [OperatorSpec("ADD", [0, 2], [3]), OperatorSpec("MUL", [1, 4], [5])]
    steps += [OperatorSpec("NEG", [5], [6]), OperatorSpec("EXP", [6], [7])]
    body = SubgraphSpec(tensors(one, count, half, *values.values()), [0, 1], [3, 7], steps)
    return write_tflite(main, cond, body)


@pytest.mark.slow
def test_results_in_place_within_a_loop() -> None:
    data = loop()
    found = layertap.optimize(data, verify=False)
    assert found.after.arena.head < found.before.arena.head
    assert {shared.subgraph for shared in found.layout.shared} == {2}
    v = np.linspace(-1, 1, SIZE // 4, dtype=np.float32)[None]
    feed = {"i": np.zeros(1, np.int32), "v": v}
    (value,) = micro(found.data, feed).values()
    assert micro(data, feed) == {"v'": value}
    for _ in range(4):
        v = np.exp(-0.5 * v)
    np.testing.assert_allclose(np.frombuffer(value, np.float32), v[0], rtol=1e-6)


@pytest.mark.slow
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(known=known_models())
def test_random_models(known: KnownModel) -> None:
    found = layertap.optimize(known.data, sharing="overlapping", verify=False)
    assert found.after.arena.minimum <= found.before.arena.minimum
    expected = micro(known.data, known.feed)
    assert micro(found.data, known.feed) == expected
    everything_tapped(known.data, found.data, known.feed)


@pytest.mark.slow
def test_real_models(shared: Path, tmp_path: Path) -> None:
    """On every model that the wheel can run: the head that was promised, in an arena of the size
    that was promised, the same values, also of each tensor that is tapped."""
    promised, smaller = {}, {}
    for path in sorted(shared.glob("models/*/*.tflite")):
        if path.stem == "kws_float":
            continue  # float activations with int8 weights: the micro interpreter refuses them
        for sharing in SHARINGS:
            found = layertap.optimize(path, sharing=sharing)
            assert found.after.arena.minimum <= found.before.arena.minimum, path.name
            if not found.changed:
                continue
            assert found.verified == 4, (path.name, found.unverified)
            promised[f"{sharing}-{path.name}"] = found.after.arena
            smaller[f"{sharing}-{path.name}"] = found.data
            feed = random_feed(found.data)
            if path.stem != "resnet_float":  # slow, and its int8 twin has the same graph
                everything_tapped(path.read_bytes(), found.data, feed)
            with layertap.Model(TflmSession(found.data, arena=found.after.arena.minimum)) as model:
                outputs = [tap.name for tap in model.graph.outputs]
                model.capture(feed, taps=outputs)
    assert len(smaller) >= 6
    for name, printed in allocated(smaller, tmp_path).items():
        arena = promised[name]
        assert (printed["head"], printed["total"]) == (arena.head, arena.used), name


@pytest.mark.slow
def test_person_detect_needs_a_third_less(shared: Path) -> None:
    found = layertap.optimize(shared / "models/tflm/person_detect.tflite", sharing="overlapping")
    assert found.before.arena.head == 55296
    assert found.after.arena.head <= 36896
    assert found.layout.bound >= 36880
