"""Which axis counts samples in TensorFlow graphs, against NumPy."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

import layertap  # noqa: E402

FOLLOWED = "followed op by op"
ORDER = "a further run, in another order"


def random(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def mixing(x: Any) -> Any:
    flat = x[:, 0, :]
    steps = tf.transpose(x, (1, 0, 2), name="steps")
    tf.matmul(flat, flat, transpose_b=True, name="scores")
    tf.matmul(flat, flat, transpose_a=True, name="gram")
    order = tf.argsort(flat[:, 0])
    tf.identity(tf.gather(flat, order), name="sorted")
    tf.identity(tf.gather(tf.gather(flat, order), tf.argsort(order)), name="again")
    tf.identity(flat[::-1], name="flipped")
    tf.reshape(steps, tf.shape(x), name="turned")
    tf.reshape(tf.reshape(x, (-1, 3)) * 2.0, (-1, 5, 3), name="back")
    tf.gather(x, tf.constant([2, 0]), axis=1, name="picked")
    tf.identity(tf.boolean_mask(flat, flat[:, 0] > 0), name="masked")
    return tf.reduce_sum(x, 1, name="total")


def oracle(x: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    flat = x[:, 0, :]
    rows = {"steps": x, "again": flat, "back": x * 2, "picked": x[:, [2, 0]], "total": x.sum(1)}
    whole = {"scores": flat @ flat.T, "gram": flat.T @ flat, "sorted": flat[flat[:, 0].argsort()]}
    whole["flipped"], whole["masked"] = flat[::-1], flat[flat[:, 0] > 0]
    whole["turned"] = x.transpose(1, 0, 2).reshape(x.shape)
    return rows, whole


@pytest.mark.parametrize("size", [4, 5, 3, 2])
@pytest.mark.parametrize("known", ["any size", "this size"])
def test_no_size_is_taken_for_the_batch(size: int, known: str) -> None:
    x = random(size, 5, 3)
    spec = tf.TensorSpec((None if known == "any size" else size, 5, 3))
    rows, whole = oracle(x)
    if known == "this size" and size == 5:  # a reshape to the shape that it has already
        whole.pop("turned")
        rows["turned"] = x
    with layertap.open(tf.function(mixing, input_signature=[spec])) as model:
        taps = [name for name in (*rows, *whole) if name in model.graph]
        assert len(taps) == len(rows) + len(whole)
        run = model.capture(x, taps)
        for name in rows:
            np.testing.assert_allclose(run[name].raw, rows[name], 1e-5, 1e-5, err_msg=name)
        for name in whole:
            assert run[name].tap.per == "batch", name
            np.testing.assert_allclose(run[name].raw[0], whole[name], 1e-5, 1e-5, err_msg=name)
        told = run.provenance["sample_axis"]
        assert told["again"] == ORDER
        followed = {told[name] for name in ("steps", "back", "picked", "total")}
        assert followed == {FOLLOWED if known == "any size" else ORDER}


def test_an_untraced_function() -> None:
    x, y = random(4, 5, 3), random(2, 5, 3)
    with layertap.open(tf.function(mixing)) as model:
        run = model.capture([x, y], "again | gram | steps")
        for name in ("again", "steps"):
            expected = np.concatenate([oracle(one)[0][name] for one in (x, y)])
            np.testing.assert_allclose(run[name].raw, expected, 1e-5, 1e-5, err_msg=name)
        expected = [oracle(one)[1]["gram"] for one in (x, y)]
        np.testing.assert_allclose(run["gram"].raw, expected, 1e-5, 1e-5)


def test_random_numbers_are_not_run_for_once_more() -> None:
    def noisy(x: Any) -> Any:
        kept = tf.gather(tf.identity(x), tf.argsort(tf.argsort(x[:, 0])))
        return tf.add(kept, tf.random.uniform(tf.shape(x), seed=1), name="noisy")

    x = random(4, 3)
    with layertap.open(tf.function(noisy, input_signature=[tf.TensorSpec((None, 3))])) as model:
        run = model.capture(x, "noisy")
        assert run["noisy"].tap.per == "batch"
        assert "random numbers" in run.provenance["sample_axis"]["noisy"]


FRAMES = {
    "any": tf.TensorSpec((None,)),
    "fixed": tf.TensorSpec((400,)),
    "untraced": None,
}


@pytest.mark.parametrize("spec", list(FRAMES))
def test_one_dimensional_inputs(spec: str) -> None:
    """A waveform, of which frames are made: more than a few elements are needed for one."""

    def spectrum(wave: Any) -> Any:
        loud = tf.multiply(wave, 2.0, name="loud")
        frames = tf.signal.frame(loud, 100, 50)
        pad = tf.reshape(frames[:, :99], (-1, 9, 11, 1))
        return tf.reduce_mean(
            tf.nn.conv2d(pad, tf.ones((3, 3, 1, 2)), 2, "VALID"), (1, 2), name="scores"
        )

    wave = random(400)
    signature = None if FRAMES[spec] is None else [FRAMES[spec]]
    expected = spectrum(tf.constant(wave)).numpy()
    with layertap.open(tf.function(spectrum, input_signature=signature)) as model:
        run = model.capture(wave, "loud | scores")
        np.testing.assert_array_equal(np.ravel(run["loud"].raw), wave * 2)
        assert run["scores"].tap.per == "batch"
        np.testing.assert_allclose(run["scores"].raw[0], expected, 1e-5, 1e-6)
