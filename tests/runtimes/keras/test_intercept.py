"""Hearing layer calls: only this thread's, in order, and Keras is put back."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

from layertap.runtimes.keras.intercept import listening  # noqa: E402

X = np.ones((2, 3), np.float32)


class Log:
    def __init__(self) -> None:
        self.events: list[str] = []

    def enter(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.events.append(f"enter {layer.name}")

    def leave(self, outputs: Any) -> None:
        self.events.append("leave")

    def fail(self) -> None:
        self.events.append("fail")


def test_calls_of_another_thread_are_not_heard() -> None:
    log, layer, original = Log(), keras.layers.Dense(2, name="d"), keras.Layer.__call__
    layer.build((None, 3))
    with listening(log):
        other = threading.Thread(target=lambda: layer(X))
        other.start()
        other.join()
        assert log.events == []
        layer(X)
    assert log.events == ["enter d", "leave"]
    layer(X)
    assert len(log.events) == 2
    assert keras.Layer.__call__ is original


def test_a_failing_call_is_reported_and_everything_put_back() -> None:
    log, layer, original = Log(), keras.layers.Dense(2, name="d"), keras.Layer.__call__
    layer.build((None, 3))
    with pytest.raises(ValueError, match="incompatible"), listening(log):
        layer(X[:, :2])
    assert log.events == ["enter d", "fail"]
    assert keras.Layer.__call__ is original


def test_one_who_listens_alone_silences_the_others() -> None:
    first, second, layer = Log(), Log(), keras.layers.Dense(2, name="d")
    layer.build((None, 3))
    with listening(first):
        with listening(second, alone=True):
            layer(X)
        assert (first.events, len(second.events)) == ([], 2)
        layer(X)
    assert (len(first.events), len(second.events)) == (2, 2)
