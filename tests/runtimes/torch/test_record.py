"""Values that a module's own code records."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import layertap  # noqa: E402
from layertap.errors import NoSuchTap  # noqa: E402


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Scaled()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = layertap.record("weights", torch.softmax(x, -1))
        weights += 1  # in place, after it was recorded
        for _ in range(2):
            x = layertap.record("x", self.inner(x))
        return x * weights


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return layertap.record("pair", (x * 2, x + 1))[0]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.last = Attention(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return layertap.record("end", self.last(self.block(x)))


NAMES = [
    "block/weights",
    "block.inner/pair",
    "block.inner/pair:1",
    "block/x",
    "block.inner@1/pair",
    "block.inner@1/pair:1",
    "block/x.1",
    "end",
]


def test_recorded_values_are_taps_of_the_call_that_they_are_in() -> None:
    net, x = Net(), torch.arange(6.0).reshape(2, 3)
    expected = [torch.softmax(x, -1), x * 2, x + 1, x * 2, x * 4, x * 2 + 1, x * 4, net(x)]
    with layertap.open(net) as model:
        for _ in range(2):
            run = model.capture(x.numpy(), lambda tap: tap.op == "record")
            assert list(run) == NAMES
            for name, value in zip(NAMES, expected, strict=True):
                np.testing.assert_array_equal(run[name].raw, value.numpy(), err_msg=name)
        for name, value in zip(NAMES, expected, strict=True):
            alone = model.capture(x.numpy(), name)[name].raw
            np.testing.assert_array_equal(alone, value.numpy(), err_msg=name)
        with pytest.raises(NoSuchTap, match="block/weight"):
            model.capture(x.numpy(), "block/weight")


def test_recorded_values_when_attached_to() -> None:
    net, x = Net(), torch.ones(2, 3)
    with layertap.attach(net, "block/*") as taps:
        net(x)
        assert list(taps) == ["block/weights", "block/x", "block/x.1"]
        np.testing.assert_allclose(taps["block/weights"], np.full((2, 3), 1 / 3), 1e-6)
    with layertap.attach(net) as taps:
        net(x)
        assert set(NAMES) <= set(taps)


def test_each_of_two_models_attached_to_has_its_own() -> None:
    x = torch.ones(2, 3)
    one, two = Net(), Attention()
    with layertap.attach(one) as taps, layertap.attach(two) as others:
        one(x)
        assert set(NAMES) <= set(taps)
        assert not others
        two(x * 2)
        layertap.record("mine", x)
        assert "mine" not in {*taps, *others}
        np.testing.assert_array_equal(taps["block.inner/pair"], x.numpy() * 2)
        np.testing.assert_array_equal(others["inner/pair"], x.numpy() * 4)


def test_nobody_hears_outside_of_a_capture() -> None:
    value = torch.ones(2)
    assert layertap.record("x", value) is value
    assert Net()(torch.ones(1, 3)).shape == (1, 3)
