"""What one further run proves, and what following an axis does, on made-up models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from layertap.core.axes import changed_order
from layertap.core.following import Step, Trail, follow
from layertap.core.graph import TapPoint
from layertap.core.proving import prove

Model = Callable[[Any], Any]


def judged(model: Model, x: Any, shape: Any = None, axis: int | None = None) -> int | None:
    per: Any = "batch" if axis is None else "sample"
    tap = TapPoint("y", "output", "op", "float32", shape, 0, per=per, batch_axis=axis or 0)
    run = lambda arrays: {"y": model(arrays["x"])}  # noqa: E731
    return prove([tap], {"x": x}, run, len(x), {"x"})["y"].axis


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_no_rearrangement_of_a_batch_passes(size: int) -> None:
    x = np.random.default_rng(0).normal(size=(size, 3)).astype(np.float32)
    assert judged(lambda x: x * 2, x) == 0
    assert judged(lambda x: x.T, x) == 1
    for places in ([*range(1, size), 0], [*range(size)][::-1], [1, 0, *range(2, size)]):
        assert judged(lambda x, places=places: x[places], x) is None
        assert judged(lambda x, places=places: x[places], x, (None, 3), 0) is None
    assert judged(lambda x: x[x[:, 0].argsort()], x) is None
    assert judged(lambda x: x.T @ x, x) is None
    assert judged(lambda x: x[: size - 1], x) is None


def test_what_is_alike_tells_nothing_but_for_the_axis_that_follows() -> None:
    x = np.ones((3, 3), np.float32)
    assert judged(lambda x: x, x) is None
    assert judged(lambda x: x, x, (3, None), 1) == 1


def test_a_run_that_fails_or_lacks_the_tap_proves_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)

    def once(given: Any) -> Any:
        if not np.array_equal(given, x):
            raise ValueError("these samples, in this order")
        return given

    assert judged(once, x) is None
    assert changed_order(4, longer=False).tolist() == [3, 0, 0, 1]


def trail(samples: int, *steps: Step) -> Trail:
    return Trail({"x": (samples, 4, 3)}, list(steps))


def certain(make: Callable[[int], list[Step]]) -> tuple[int | None, int, bool]:
    """What is known of ``y`` when a trail for 2 and one for 3 samples are laid side by side."""
    found = follow(trail(2, *make(2)), trail(3, *make(3)), (2, 3))["y"]
    return found.axis, found.times, found.certain


def test_an_axis_is_followed_through_what_keeps_the_order_only() -> None:
    def one(shape: Any, **more: Any) -> Any:
        return certain(lambda n: [Step("op", ("x",), (("y", shape(n)),), **more)])

    assert one(lambda n: (4, n, 3)) == (1, 1, True)
    assert one(lambda n: (4, n, 3), kind="reshape") == (1, 1, False)
    assert one(lambda n: (n, 12), kind="reshape") == (0, 1, True)
    assert one(lambda n: (n * 4, 3), kind="reshape") == (0, 4, True)
    assert one(lambda n: (n * 4, 3)) == (0, 4, False)
    assert one(lambda n: (n, 4, 3), upsets=None) == (0, 1, False)
    assert one(lambda n: (n, 4, 3), upsets=frozenset({0})) == (0, 1, False)
    assert one(lambda n: (n, 4, 3), upsets=frozenset({1})) == (0, 1, True)
    assert one(lambda n: (n, n)) == (None, 1, False)
    assert one(lambda n: (n + 1, 3)) == (None, 1, False)
    assert one(lambda n: (4, 3)) == (None, 1, True)


def test_what_is_looked_up_by_what_is_given_is_not_followed() -> None:
    def steps(n: int) -> list[Step]:
        places = Step("sort", ("x",), (("places", (n,)),))
        return [places, Step("gather", ("x", "places"), (("y", (n, 4, 3)),), kind="lookup")]

    def table(n: int) -> list[Step]:
        weights = Step("const", (), (("table", (9, 5)),))
        return [weights, Step("gather", ("table", "x"), (("y", (n, 4, 3, 5)),), kind="lookup")]

    assert certain(steps) == (0, 1, False)
    assert certain(table) == (0, 1, True)


def test_a_computation_that_depends_on_the_size_is_not_followed() -> None:
    short, long = (trail(n, *[Step("op", ("x",), (("y", (n,)),))] * n) for n in (2, 3))
    assert follow(short, long, (2, 3)) == {}
