"""Where samples end up, operation by operation: the right axis is plain from each function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layertap

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

B = 3
FOLLOWED = "followed op by op"


class Tapped(nn.Module):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function
        self.tap = nn.Identity()

    def forward(self, x: Any) -> Any:
        return self.tap(self.function(x))


def captured(function: Callable[[Any], Any], x: Any) -> tuple[Any, str]:
    run = layertap.open(Tapped(function)).capture(x, "tap")
    return run["tap"], run.provenance["sample_axis"]["tap"]


W = torch.linspace(-1, 1, 16).reshape(4, 4)
KERNEL = torch.linspace(-1, 1, 64).reshape(4, 4, 4)  # as many as no three samples can make


def _written_in_steps(x: Any) -> Any:
    out = torch.empty(5, x.shape[0], 4)
    for step in range(5):
        out[step] = x * step
    return out


FOLLOWS: dict[str, tuple[Callable[[Any], Any], int, tuple[int, ...]]] = {
    "linear": (lambda x: x @ W, 0, (B, 4)),
    "transposed": (lambda x: x.T * 2, 1, (B, 4)),
    "time first": (lambda x: x.permute(1, 0, 2).relu(), 1, (B, 5, 4)),
    "merged and split": (lambda x: (x.reshape(-1, 4) @ W).reshape(-1, 5, 4), 0, (B, 5, 4)),
    "merged behind": (
        lambda x: (x.transpose(0, 1).reshape(-1, 4) @ W).view(5, -1, 4), 1, (B, 5, 4)
    ),
    "joined": (lambda x: torch.cat([torch.zeros(len(x), 1), x], 1), 0, (B, 4)),
    "stacked": (lambda x: torch.stack([x, x * 2]), 1, (B, 4)),
    "sorted within": (lambda x: x.sort(1)[0], 0, (B, 4)),
    "flipped within": (lambda x: x.flip(1), 0, (B, 4)),
    "in place": (lambda x: x.clone().transpose_(0, 1).mul_(2), 1, (B, 4)),
    "convolution": (lambda x: functional.conv1d(x, KERNEL, padding=1), 0, (B, 4, 5)),
    "attention": (lambda x: functional.scaled_dot_product_attention(x, x, x), 0, (B, 2, 5, 4)),
    "group norm": (lambda x: functional.group_norm(x, 2), 0, (B, 4, 5)),
    "batch norm": (lambda x: functional.batch_norm(x, None, None, training=True), 0, (B, 4)),
    "outer product": (lambda x: torch.einsum("bi,bj->bij", x, x), 0, (B, 4)),
    "dropout": (lambda x: functional.dropout(x, 0.5), 0, (B, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWS)
def test_what_is_followed(name: str) -> None:
    function, axis, shape = FOLLOWS[name]
    x = torch.randn(shape)
    torch.manual_seed(3)
    expected = function(x).numpy()
    torch.manual_seed(3)
    capture, known = captured(function, x)
    assert known == FOLLOWED
    assert (capture.tap.per, capture.tap.batch_axis) == ("sample", axis)
    np.testing.assert_array_equal(capture.raw, np.moveaxis(expected, axis, 0))


@pytest.mark.parametrize("name", FOLLOWS)
def test_one_sample_is_followed_the_same_way(name: str) -> None:
    function, axis, shape = FOLLOWS[name]
    if name == "batch norm":
        pytest.skip("it needs more than one value")
    capture, _ = captured(function, torch.randn(1, *shape[1:]))
    assert (capture.tap.per, capture.tap.batch_axis) == ("sample", axis)


# Rising values: many of these give the batch in its own order, which proves nothing.
RISING = torch.arange(B * 4.0).reshape(B, 4)
MIXES: dict[str, Callable[[Any], Any]] = {
    "product of all": lambda x: x.T @ x,
    "sorted": lambda x: x.sort(0)[0],
    "reversed": lambda x: x.flip(0),
    "ranked": lambda x: x[x[:, 0].argsort()],
    "largest": lambda x: x.topk(B, 0)[0].flip(0),
    "chosen": lambda x: x[torch.arange(B)],
    "turned": lambda x: x.roll(B, 0),
    "distances": lambda x: torch.cdist(x, x),
    "sorted by another name": lambda x: (
        lambda own: (own.view(-1).copy_(torch.sort(own.view(-1))[0]), own)[1]
    )(x * 1),
    "the module's own": lambda x: torch.ones(B, 4),
}


@pytest.mark.parametrize("name", MIXES)
def test_what_mixes_samples_has_one_row_for_the_batch(name: str) -> None:
    x = torch.cat([RISING, RISING[:, :1]], 1)[:, :B] if name == "product of all" else RISING
    capture, _ = captured(MIXES[name], x)
    assert capture.tap.per == "batch"
    np.testing.assert_array_equal(capture.raw[0], MIXES[name](x).numpy())


FURTHER: dict[str, tuple[Callable[[Any], Any], int]] = {
    "through NumPy": (lambda x: torch.from_numpy(x.numpy() * 2), 0),
    "written in steps": (_written_in_steps, 1),
    "the same for each": (lambda x: torch.ones(4).expand(len(x), 4), 0),
}


@pytest.mark.parametrize("name", FURTHER)
def test_what_only_a_further_run_proves(name: str) -> None:
    function, axis = FURTHER[name]
    x = torch.randn(B, 4)
    capture, known = captured(function, x)
    assert known == "a further run, of another size"
    assert (capture.tap.per, capture.tap.batch_axis) == ("sample", axis)
    np.testing.assert_array_equal(capture.raw, np.moveaxis(function(x).numpy(), axis, 0))


def test_a_network_of_one_batch_size_is_run_in_another_order() -> None:
    capture, known = captured(
        lambda x: torch.from_numpy(x.view(B, 4).numpy() * 2), torch.randn(B, 4)
    )
    assert (capture.tap.per, known) == ("sample", "a further run, in another order")


def test_an_input_may_have_its_samples_elsewhere() -> None:
    net, x = nn.GRU(4, 5, num_layers=2), torch.randn(6, B, 4)
    with torch.no_grad():
        output, hidden = net(x)
    run = layertap.open(net).capture(x, batch_axis={"input": 1}, batch_size=1)
    assert run.samples == B
    np.testing.assert_allclose(run["output"].raw, output.transpose(0, 1), atol=1e-6)
    np.testing.assert_allclose(run["output:1"].raw, hidden.transpose(0, 1), atol=1e-6)


def test_who_knows_better_says_so() -> None:
    x = torch.randn(B, 4)
    model = layertap.open(Tapped(lambda x: torch.sort(x, 0)[0]))
    run = model.capture(x, "tap", batch_axis={"tap": 0})
    assert run["tap"].raw.shape == (B, 4)
    run = model.capture(x, "tap | output", batch_axis={"*": None})
    assert all(capture.raw.shape == (1, B, 4) for capture in run.values())
