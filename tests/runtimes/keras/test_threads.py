"""A call belongs to the thread that made it, and an interrupt leaves Keras as it was."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

import layertap  # noqa: E402
from layertap.runtimes.keras.intercept import RUNS  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_names")]  # many threads and runs

L = keras.layers


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def numpy(tensor: Any) -> Any:
    return np.array(keras.ops.convert_to_numpy(tensor))


def recurrent() -> Any:
    inputs = keras.Input((4, 3), name="x")
    h = L.LSTM(5, return_sequences=True, name="lstm")(L.Dense(3, name="dense")(inputs))
    return keras.Model(inputs, L.GRU(2, name="gru")(h))


def everything() -> dict[tuple[Any, str], Any]:
    """What of Keras may be replaced while somebody listens."""
    found = {(kind, "__call__"): kind.__call__ for kind in (keras.Layer, keras.Operation)}
    found[keras.Layer, "stateless_call"] = keras.Layer.stateless_call
    found |= {(keras.Model, name): getattr(keras.Model, name) for name in RUNS}
    for kind in (L.RNN, L.LSTM, L.GRU):
        found |= {(kind, name): getattr(kind, name) for name in ("call", "inner_loop")}
    return found


def in_threads(*works: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if failed:
        raise failed[0]


def test_two_threads_capture_from_one_model() -> None:
    net, before = recurrent(), everything()
    held = {name: dict(vars(layer)) for name, layer in ((one.name, one) for one in net.layers)}

    def capturing(seed: int) -> Callable[[], None]:
        def work() -> None:
            for i in range(3):
                x = random(2, 4, 3, seed=seed + i)
                with layertap.open(net, fused_rnn=False) as model:
                    run = model.capture(x, "dense | lstm:hidden_steps | gru")
                dense = net.get_layer("dense")
                expected = x @ numpy(dense.kernel) + numpy(dense.bias)
                np.testing.assert_allclose(run["dense"].raw, expected, 1e-4, 1e-5)
                steps = run["lstm:hidden_steps"].raw
                assert steps.shape == (2, 4, 5)
                last = numpy(net.get_layer("lstm")(expected))
                np.testing.assert_allclose(steps, last, 1e-3, 1e-4)

        return work

    in_threads(*(capturing(10 * i) for i in range(4)))
    assert everything() == before
    for layer in net.layers:
        assert vars(layer).keys() == held[layer.name].keys()


def test_another_thread_that_serves_is_not_heard_by_attach() -> None:
    net, done = recurrent(), threading.Event()
    net(random(1, 4, 3))
    before = everything()
    mine, theirs = random(2, 4, 3, seed=1), random(3, 4, 3, seed=2)
    expected = numpy(net(theirs))

    def serving() -> None:
        while not done.is_set():
            np.testing.assert_allclose(numpy(net(theirs)), expected, 1e-4, 1e-5)
            if keras.backend.backend() != "jax":  # there it gives the model's own arrays away
                net.predict_on_batch(theirs)

    def attached() -> None:
        try:
            dense = net.get_layer("dense")
            for i in range(12):
                with layertap.attach(net, "dense") as taps:
                    net(mine + i)
                    time.sleep(0.005)
                    right = (mine + i) @ numpy(dense.kernel) + numpy(dense.bias)
                    np.testing.assert_allclose(taps["dense"], right, 1e-4, 1e-5)
        finally:
            done.set()

    in_threads(serving, attached)
    assert everything() == before
    assert not set(RUNS) & vars(net).keys()


def test_a_capture_inside_of_attach_leaves_its_values() -> None:
    net = keras.Sequential([L.Dense(3, name="a"), L.Dense(2, name="b")])
    x, other = random(2, 4), random(5, 4, seed=1)
    net(x)
    with layertap.attach(net, "a") as taps:
        net(x)
        value = taps["a"].copy()
        with layertap.open(net) as model:
            captured = model.capture(other)["a"].raw
        np.testing.assert_array_equal(taps["a"], value)
        assert captured.shape == (5, 3)
        net(other)
        np.testing.assert_allclose(taps["a"], captured, 1e-4, 1e-5)
    unbuilt = keras.Sequential([L.Dense(3, name="a")])
    with layertap.attach(unbuilt, "a") as taps, layertap.open(unbuilt) as model:
        model.capture(x)
        with pytest.raises(layertap.LayertapError, match="not called since"):
            taps["a"]


# One that comes while Python collects garbage is printed there, by Python, and lost.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("eager", [False, True])
def test_an_interrupt_leaves_keras_and_the_model_as_they_were(eager: bool) -> None:
    net, x = recurrent(), random(2, 4, 3)
    expected, before = numpy(net(x)), everything()
    weights = [numpy(one) for one in net.variables]
    held = [dict(vars(layer)) for layer in net.layers]
    stopped = 0
    start = time.perf_counter()
    with layertap.open(net, eager=eager) as model:
        model.capture(x, "dense | lstm")
    took = time.perf_counter() - start
    for moment in np.linspace(0.001, took, 25):
        timer = threading.Timer(moment, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            with layertap.open(net, eager=eager) as model:
                model.capture(x, "dense | lstm")
            timer.join()
            time.sleep(0.001)
        except (KeyboardInterrupt, layertap.LayertapError):
            stopped += 1  # Keras has an except for everything that makes an error of an interrupt
        timer.join()
        assert everything() == before
        assert [vars(layer).keys() for layer in net.layers] == [one.keys() for one in held]
        np.testing.assert_allclose(numpy(net(x)), expected, 1e-5)
    for one, was in zip(net.variables, weights, strict=True):
        np.testing.assert_array_equal(numpy(one), was)
    assert stopped > 5
