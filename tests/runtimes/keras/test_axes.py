"""Which axis counts samples: followed, proven by a further run, or else one row per batch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

import layertap  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_names")]  # traces a model per test

L, ops = keras.layers, keras.ops

FOLLOWED = "followed op by op"
ORDER = "a further run, in another order"


def random(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class Mixing(keras.Model):
    """What each record is of x (sample, time, channel) is plain to see."""

    def call(self, x: Any) -> Any:
        flat = x[:, 0, :]
        steps = ops.transpose(x, (1, 0, 2))
        layertap.record("steps", steps)
        layertap.record("scores", ops.matmul(flat, ops.transpose(flat)))
        layertap.record("gram", ops.matmul(ops.transpose(flat), flat))
        layertap.record("mean", ops.mean(flat, axis=0))
        layertap.record("centred", flat - ops.mean(flat, axis=0))
        layertap.record("sorted", ops.take(flat, ops.argsort(flat[:, 0]), axis=0))
        layertap.record("flipped", ops.flip(flat, axis=0))
        layertap.record("turned", ops.reshape(steps, ops.shape(x)))
        rows = ops.reshape(x, (-1, x.shape[-1]))
        layertap.record("rows", rows)
        layertap.record("back", ops.reshape(rows * 2, (-1, *x.shape[1:])))
        last = ops.shape(x)[0] - 1
        layertap.record(
            "again", ops.take(ops.flip(flat, axis=0), last - ops.arange(last + 1), axis=0)
        )
        layertap.record("coupled", ops.matmul(ops.matmul(flat, ops.transpose(flat)), flat))
        return ops.sum(x, axis=1)


def oracle(x: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of what has one per sample, and the values of what has not."""
    flat, steps = x[:, 0, :], x.transpose(1, 0, 2)
    rows = {"steps": x, "centred": flat - flat.mean(0), "back": x * 2, "output": x.sum(1)}
    rows["again"] = flat
    whole = {"scores": flat @ flat.T, "gram": flat.T @ flat, "mean": flat.mean(0)}
    whole["coupled"] = flat @ flat.T @ flat
    whole["sorted"], whole["flipped"] = flat[flat[:, 0].argsort()], flat[::-1]
    whole["turned"], whole["rows"] = steps.reshape(x.shape), x.reshape(-1, x.shape[-1])
    return rows, whole


def check(run: Any, rows: dict[str, Any], whole: dict[str, Any]) -> None:
    assert set(run) == {*rows, *whole}
    per = dict.fromkeys(rows, "sample") | dict.fromkeys(whole, "batch")
    assert {tap.name: tap.per for tap in run.taps} == per
    expected = rows | {name: value[None] for name, value in whole.items()}
    for name, value in expected.items():
        np.testing.assert_allclose(run[name].raw, value, 1e-5, 1e-5, err_msg=name)


@pytest.mark.parametrize("shape", [(4, 5, 3), (5, 5, 5), (3, 5, 3), (2, 2, 2)])
def test_no_size_is_taken_for_the_batch(shape: tuple[int, ...]) -> None:
    x = random(*shape)
    with layertap.open(Mixing()) as model:
        run = model.capture(x)
        check(run, *oracle(x))
        known = run.provenance["sample_axis"]
        assert {known[name] for name in ("steps", "centred", "back", "output")} == {FOLLOWED}
        assert known["again"] == ORDER
        assert "another order" in known["sorted"]
        assert "another order" in known["turned"]
        assert "none of its axes" in known["gram"]
        again = model.capture(x)
        check(again, *oracle(x))


def test_later_batches_of_other_sizes() -> None:
    x, y = random(4, 5, 3), random(2, 5, 3)
    with layertap.open(Mixing()) as model:
        run = model.capture([x, y], "steps | again | gram")
        for name in ("steps", "again"):
            expected = [oracle(one)[0][name] for one in (x, y)]
            np.testing.assert_allclose(run[name].raw, np.concatenate(expected), 1e-5, 1e-5)
        expected = [oracle(one)[1]["gram"] for one in (x, y)]
        np.testing.assert_allclose(run["gram"].raw, expected, 1e-5, 1e-5)


def test_samples_that_are_all_alike() -> None:
    x = np.ones((4, 5, 3), np.float32)
    net = keras.Sequential([keras.Input((5, 3)), L.Dense(3, name="a"), L.Flatten(name="b")])
    with layertap.open(net) as model:
        run = model.capture(x)
        assert run["a"].raw.shape == (4, 5, 3)
        assert set(run.provenance["sample_axis"].values()) == {FOLLOWED}
    with layertap.open(Mixing()) as model:
        assert model.capture(x, "again")["again"].raw.shape == (4, 3)


def test_one_sample_first() -> None:
    x = random(4, 5, 3)
    with layertap.open(Mixing()) as model:
        run = model.capture(x[:1], "again | steps")
        assert run.provenance["sample_axis"] == {"steps": FOLLOWED, "again": "one sample"}
        np.testing.assert_allclose(run["steps"].raw, x[:1])
        run = model.capture(x, "sorted | again")
        np.testing.assert_allclose(run["sorted"].raw[0], oracle(x)[1]["sorted"], 1e-5)


def test_layers_that_keras_brings() -> None:
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    h = L.Embedding(11, 8, name="embed")(tokens)
    h = L.LayerNormalization(name="norm")(h + L.MultiHeadAttention(2, 4, name="mha")(h, h))
    h = L.Conv1D(8, 3, padding="same", name="conv")(h)
    h = L.BatchNormalization(name="bn")(h)
    h = L.MaxPooling1D(2, name="pool")(h)
    mean = L.GlobalAveragePooling1D(name="mean")(h)
    h = L.TimeDistributed(L.Dense(5), name="timed")(h)
    net = keras.Model(tokens, [mean, L.LSTM(4, name="lstm")(h)])
    x = np.random.default_rng(0).integers(0, 11, (6, 6)).astype(np.int32)
    with layertap.open(net) as model:
        run = model.capture(x)
        assert {tap.name: tap.per for tap in run.taps if "/" not in tap.name} == dict.fromkeys(
            (tap.name for tap in run.taps if "/" not in tap.name), "sample"
        )
        known = run.provenance["sample_axis"]
        for name in ("embed", "norm", "mha", "conv", "bn", "pool", "mean"):
            assert known[name] == FOLLOWED, name
        embedded = np.array(ops.convert_to_numpy(net.get_layer("embed").embeddings))[x]
        np.testing.assert_array_equal(run["embed"].raw, embedded)
        for name, value in zip(("mean", "lstm"), net(x), strict=True):
            np.testing.assert_allclose(
                run[name].raw, ops.convert_to_numpy(value), 1e-4, 1e-5, err_msg=name
            )


class Routed(keras.Model):
    """An expert that gets the rows with a positive first element."""

    def __init__(self) -> None:
        super().__init__()
        self.expert = L.Dense(3, name="expert", kernel_initializer="identity")

    def call(self, x: Any) -> Any:
        chosen = ops.convert_to_numpy(x)[:, 0] > 0
        return ops.sum(self.expert(x[chosen]), axis=0) if chosen.any() else x[0]


def test_an_expert_s_rows_are_not_those_of_the_first_samples() -> None:
    x = np.array([[1, 1, 1], [-1, 2, 2], [2, 3, 3], [-2, 4, 4]], np.float32)
    other = np.abs(x)
    with layertap.open(Routed(), eager=True) as model:
        run = model.capture([x, other, -other], "expert")
        first, second = run["expert"].raw
        np.testing.assert_array_equal(first, x[[0, 2]])
        np.testing.assert_array_equal(second, other)
        assert run["expert"].tap.per == "batch"
