"""layertap.record without any framework."""

from __future__ import annotations

import threading

import layertap
from layertap.recording import listening


def test_it_returns_its_argument_and_is_heard_only_while_somebody_listens() -> None:
    heard: list[tuple[str, object]] = []
    value = object()
    assert layertap.record("before", value) is value
    with listening(lambda name, value: heard.append((name, value))):
        assert layertap.record("during", value) is value
    layertap.record("after", value)
    assert heard == [("during", value)]


def test_the_innermost_listener_alone_hears() -> None:
    outer: list[str] = []
    inner: list[str] = []
    with listening(lambda name, _: outer.append(name)):
        with listening(lambda name, _: inner.append(name)):
            layertap.record("a", 1)
        with listening(None):
            layertap.record("b", 1)
        layertap.record("c", 1)
    assert (outer, inner) == (["c"], ["a"])


def test_several_may_listen_and_leave_in_any_order() -> None:
    heard: list[str] = []
    one = listening(lambda name, _: heard.append(f"one {name}"), alone=False)
    two = listening(lambda name, _: heard.append(f"two {name}"), alone=False)
    one.__enter__()
    two.__enter__()
    layertap.record("a", 1)
    one.__exit__(None, None, None)
    layertap.record("b", 1)
    two.__exit__(None, None, None)
    layertap.record("c", 1)
    assert heard == ["one a", "two a", "two b"]


def test_who_listens_twice_hears_once() -> None:
    heard: list[str] = []

    def hear(name: str, value: object) -> None:
        heard.append(name)

    with listening(hear, alone=False):
        with listening(hear, alone=False):
            layertap.record("a", 1)
        layertap.record("b", 1)
    assert heard == ["a", "b"]


def test_another_thread_is_not_heard() -> None:
    heard: list[str] = []
    with listening(lambda name, _: heard.append(name)):
        other = threading.Thread(target=lambda: layertap.record("there", 1))
        other.start()
        other.join()
        layertap.record("here", 1)
    assert heard == ["here"]


def test_a_listener_that_raises_leaves_nothing_behind() -> None:
    def refuse(name: str, value: object) -> None:
        raise KeyError(name)

    try:
        with listening(refuse):
            layertap.record("x", 1)
    except KeyError:
        pass
    assert layertap.record("x", 2) == 2
