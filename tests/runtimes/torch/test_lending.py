"""Feeds of tensors that a network only looks at are not copied; all others are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from layertap.core.dtypes import Array  # noqa: E402
from layertap.runtimes.torch import open as open_torch  # noqa: E402

Read = Callable[[Mapping[str, Any]], dict[str, Array]]

PLACES: list[int] = []
"""Where in memory the latest pass found its inputs."""


def places() -> list[int]:
    """:data:`PLACES`, once."""
    taken = PLACES[:]
    PLACES.clear()
    return taken


class Looks(nn.Module):
    """Applies ``work`` to what it is given, and says where that was."""

    def __init__(self, work: Callable[..., Any] = lambda x: x + 1) -> None:
        super().__init__()
        self.work = work
        self.last = nn.Linear(16, 16)

    def forward(self, x: Any) -> Any:
        if not isinstance(x, torch._subclasses.FakeTensor):
            PLACES[:] = [x.data_ptr()]
        return self.last(self.work(x))


class Named(nn.Module):
    """Leaves out an argument, so that others are passed by keyword."""

    def forward(self, ids: Any, mask: Any = None, bias: Any = None, *, scale: Any) -> Any:
        if not isinstance(ids, torch._subclasses.FakeTensor):
            PLACES[:] = [ids.data_ptr(), bias.data_ptr(), scale.data_ptr()]
        return (ids + bias) * scale


def batch(rows: int = 4) -> Any:
    return torch.randn(rows, 16)


def reader(net: nn.Module, feed: Mapping[str, Any], taps: str = "output") -> Read:
    """A pass over ``net`` that has seen two feeds like ``feed``: what it learned from is copied."""
    session = open_torch(net)
    session.trace(feed)
    run = session.prepare([session.graph[name] for name in taps.split()])

    def read(feed: Mapping[str, Any]) -> dict[str, Array]:
        values: dict[str, Array] = {}
        run(feed, lambda tap, value: values.__setitem__(tap.name, value))
        return values

    for _ in range(2):
        read(feed)
        assert places()[0] != next(iter(feed.values())).data_ptr()
    return read


def expected(net: nn.Module, *args: Any, **kwargs: Any) -> Array:
    with torch.no_grad():
        array: Array = net(*args, **kwargs).numpy()
    return array


def is_lent(read: Read, x: Any) -> bool:
    """Whether a pass was given ``x`` itself. Its values are left alone in any case."""
    before, version = x.detach().clone(), x._version
    read({"x": x})
    assert torch.equal(x, before)
    assert x._version == version
    return places() == [x.data_ptr()]


def test_tensors_are_lent_to_a_network_that_only_looks() -> None:
    net = Looks()
    read = reader(net, {"x": batch()})
    for _ in range(3):
        x = batch()
        plain = expected(net, x)
        PLACES.clear()
        np.testing.assert_array_equal(read({"x": x})["output"], plain)
        assert places() == [x.data_ptr()]


def test_arguments_by_position_and_by_name() -> None:
    net = Named()

    def feed() -> dict[str, Any]:
        return {"bias": batch(), "scale": batch(), "ids": batch()}

    read = reader(net, feed())
    given = feed()
    plain = expected(net, **given)
    PLACES.clear()
    np.testing.assert_array_equal(read(given)["output"], plain)
    assert places() == [given[name].data_ptr() for name in ("ids", "bias", "scale")]
    mixed = {**feed(), "scale": np.ones((4, 16), np.float32)}
    np.testing.assert_array_equal(read(mixed)["output"], (mixed["ids"] + mixed["bias"]).numpy())
    assert places()[0] != mixed["ids"].data_ptr()


KEPT: list[Any] = []

TOUCHES: dict[str, Callable[[Any], Any]] = {
    "written": lambda x: x.add_(1),
    "written in part": lambda x: x[1:].zero_() if len(x) else x,
    "written to the same effect": lambda x: x.mul_(1),
    "written behind its version": lambda x: x.data.add_(1),
    "written in NumPy": lambda x: x.numpy().fill(3),
    "reshaped": lambda x: x.unsqueeze_(0),
    "with gradients": lambda x: x.requires_grad_(),
    "with an attribute": lambda x: setattr(x, "note", 1),
    "with other memory": lambda x: setattr(x, "data", torch.zeros(4, 16)),
    "kept": KEPT.append,
    "kept in part": lambda x: KEPT.append(x[1:]),
    "kept as an array": lambda x: KEPT.append(x.numpy()),
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_what_is_more_than_looked_at_is_copied(touch: Callable[[Any], Any]) -> None:
    def work(x: Any) -> Any:
        y = x + 1
        if not isinstance(x, torch._subclasses.FakeTensor):
            touch(x)
        return y

    read = reader(Looks(work), {"x": batch()})
    for _ in range(3):
        assert not is_lent(read, batch())


def test_an_input_that_only_training_overwrites() -> None:
    net = Looks(lambda x: x.add_(1) if net.training else x + 1).eval()
    read = reader(net, {"x": batch()})
    for training, lent in (
        (False, True), (True, False), (True, False), (True, False), (True, False),
        (False, False), (False, False), (False, True),
    ):  # fmt: skip
        net.train(training)
        assert is_lent(read, batch()) == lent


@pytest.mark.parametrize("mask", [None, "text", (torch.ones(1),), {"a": torch.ones(1)}])
def test_beside_what_is_no_tensor_tensors_are_copied(mask: Any) -> None:
    feed = {"ids": batch(), "mask": mask, "bias": batch(), "scale": torch.ones(1)}
    read = reader(Named(), feed)
    for _ in range(3):
        np.testing.assert_array_equal(read(feed)["output"], feed["ids"] + feed["bias"])
        assert places()[0] != feed["ids"].data_ptr()


def test_memory_of_other_alignment_is_copied() -> None:
    net = Looks()
    read = reader(net, {"x": batch()})
    x = torch.randn(65)[1:].view(4, 16)
    assert not is_lent(read, x)
    np.testing.assert_array_equal(read({"x": x})["output"], expected(net, x.clone()))
    assert is_lent(read, batch())


def test_further_forms_are_learned_each() -> None:
    net = Looks()
    read = reader(net, {"x": batch()})
    assert is_lent(read, batch())
    assert not is_lent(read, batch(3))
    assert [is_lent(read, batch(3)) for _ in range(2)] == [True, True]
    assert [is_lent(read, batch()) for _ in range(3)] == [False, True, True]  # looks at both
    x = batch().numpy()
    np.testing.assert_array_equal(read({"x": x})["output"], expected(net, torch.from_numpy(x)))


def test_tensors_with_gradients_are_lent_without() -> None:
    read = reader(Looks(nn.Identity()), {"x": batch()})
    x = batch().requires_grad_()
    assert is_lent(read, x)
    assert x.grad_fn is None
    assert x.requires_grad


def test_values_that_are_the_input_are_the_callers_twice() -> None:
    """Once as the tensor that was given, once as the array that was asked for."""
    net = nn.Sequential(nn.Identity(), nn.Flatten(0), nn.Linear(64, 16))
    session = open_torch(net)
    x = batch()
    session.trace({"input": x})
    run = session.prepare([session.graph["0"], session.graph["1"]])
    for gradients in (False, False, False, True):
        x = batch().requires_grad_(gradients)
        before, values = x.detach().clone(), {}
        run({"input": x}, lambda tap, value: values.__setitem__(tap.name, value))  # noqa: B023
        for value in values.values():
            np.testing.assert_array_equal(value.reshape(4, 16), before)
            value[:] = -1
        assert torch.equal(x, before)
