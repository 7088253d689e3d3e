"""Arguments that passes are called with: tensors of our own, used again where nobody has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import layertap  # noqa: E402
from layertap.core.feeds import Feed  # noqa: E402
from layertap.runtimes.torch.feeding import Arguments  # noqa: E402

X = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)


class Two(nn.Module):
    def forward(self, ids: Any, mask: Any) -> Any:
        return ids * mask


def call_again(arguments: Arguments, feed: Feed) -> tuple[Any, ...]:
    call = arguments.again(feed) or arguments.bind(feed)
    return (*call.args, *call.kwargs.values())


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "uint8", "bool"])
def test_a_tensor_that_nobody_has_is_used_again(dtype: str) -> None:
    arguments = Arguments(nn.Linear(6, 6))
    addresses = set()
    for step in range(3):
        x = (X * step).astype(dtype)
        (tensor,) = call_again(arguments, {"input": x})
        np.testing.assert_array_equal(tensor.numpy(), x)
        assert tensor.dtype == getattr(torch, dtype)
        addresses.add(tensor.data_ptr())
        del tensor
    assert len(addresses) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_tensors_are_aligned_as_pytorch_aligns_its_own(dtype: str) -> None:
    """So that vectorized kernels take the same way, and round alike."""
    arguments = Arguments(nn.Linear(6, 6))
    tensors = []
    for rows in range(1, 40):
        x = np.ones((rows, 3), dtype)
        for _ in range(2):
            (tensor,) = call_again(arguments, {"input": x[::-1, ::-1]})
            assert tensor.data_ptr() % 64 == 0
            assert tensor.is_contiguous()
            tensors.append(tensor)


def test_several_arguments() -> None:
    arguments = Arguments(Two())
    feeds = [{"ids": np.full((2, 3), i), "mask": np.full((2, 3), i % 2 == 0)} for i in range(4)]
    arguments.bind(feeds[0])
    for feed in feeds:
        assert arguments.again(feed) is not None
        ids, mask = call_again(arguments, feed)
        assert (int(ids[0, 0]), bool(mask[0, 0])) == (feed["ids"][0, 0], feed["mask"][0, 0])
        del ids, mask


@pytest.mark.parametrize(
    "other",
    [
        {"input": X[:2]},
        {"input": X.astype(np.float64)},
        {"input": X.astype(">f4")},
        {"input": X.tolist()},
        {"input": torch.from_numpy(X)},
        {"input": np.ma.masked_array(X)},
        {"other": X},
        {"input": X, "other": X},
        {},
    ],
    ids=str,
)
def test_a_feed_of_another_form_is_bound_anew(other: Any) -> None:
    arguments = Arguments(nn.Linear(6, 6))
    arguments.bind({"input": X})
    assert arguments.again(other) is None
    assert arguments.again({"input": X}) is not None


def _renamed(x: Any) -> None:
    x.note = "mine"


def _given_other_memory(x: Any) -> None:
    x.data = torch.zeros(4, 6)


KEEPS: dict[str, Callable[[Any], Any]] = {
    "the tensor": lambda x: x,
    "a view": lambda x: x[0],
    "a detached one": lambda x: x.detach(),
    "its data": lambda x: x.data,
    "an array": lambda x: x.numpy(),
    "a structure": lambda x: [{"x": x}],
}

CHANGES: dict[str, Callable[[Any], Any]] = {
    "written": lambda x: x.add_(1),
    "reshaped": lambda x: x.unsqueeze_(0),
    "transposed": lambda x: x.t_(),
    "resized": lambda x: x.resize_(2, 2),
    "set": lambda x: x.set_(torch.zeros(3)),
    "with gradients": lambda x: x.requires_grad_(),
    "with an attribute": _renamed,
    "with other memory": _given_other_memory,
}


@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS)
def test_what_somebody_has_is_left_to_them(keep: Callable[[Any], Any]) -> None:
    arguments = Arguments(nn.Linear(6, 6))
    for _ in range(2):
        arguments.bind({"input": X})
        kept = keep(call_again(arguments, {"input": X})[0])
        before = str(kept)
        (tensor,) = call_again(arguments, {"input": X + 1})
        np.testing.assert_array_equal(tensor.numpy(), X + 1)
        assert str(kept) == before


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_is_not_used_again(change: Callable[[Any], Any]) -> None:
    arguments = Arguments(nn.Linear(6, 6))
    arguments.bind({"input": X})
    change(call_again(arguments, {"input": X})[0])
    assert arguments.again({"input": X}) is None
    (tensor,) = call_again(arguments, {"input": X})
    np.testing.assert_array_equal(tensor.numpy(), X)
    assert not tensor.requires_grad
    assert not tensor.__dict__


def test_the_callers_array_is_nobody_elses() -> None:
    arguments = Arguments(nn.Linear(6, 6))
    x = X.copy()
    for _ in range(3):
        (tensor,) = call_again(arguments, {"input": x})
        assert not np.shares_memory(tensor.numpy(), x)
        tensor.zero_()
        np.testing.assert_array_equal(x, X)


def test_nothing_is_used_again_in_inference_mode() -> None:
    arguments = Arguments(nn.Linear(6, 6))
    with torch.inference_mode():
        arguments.bind({"input": X})
        assert arguments.again({"input": X}) is None
    (tensor,) = call_again(arguments, {"input": X})
    assert not tensor.is_inference()


class OfSeveral(nn.Module):
    """Takes several tensors as one argument."""

    def __init__(self) -> None:
        super().__init__()
        self.product = Two()

    def forward(self, x: Any) -> Any:
        left, right = x.values() if isinstance(x, dict) else x
        return self.product(left, right)


@pytest.mark.parametrize("form", [tuple, lambda each: dict(zip("ab", each, strict=True))])
@pytest.mark.parametrize("size", [None, 2])
def test_an_argument_that_holds_several_arrays(
    form: Callable[[Any], Any], size: int | None
) -> None:
    left, right = X[:3], X[1:]
    argument = form((left, right))
    with layertap.open(OfSeveral()) as model:
        for x in ({"x": argument}, [(argument, np.zeros(3))]):
            run = model.capture(x, "product", batch_size=size)
            assert run.samples == 3
            np.testing.assert_array_equal(run["product"].raw, left * right)


class Repeats(nn.Module):
    """Does what plain Python values say."""

    def __init__(self) -> None:
        super().__init__()
        self.product = Two()

    def forward(self, x: Any, times: int, *, negative: bool = False, by: float = 1.0) -> Any:
        assert [type(value) for value in (times, negative, by)] == [int, bool, float]
        for _ in range(times):
            x = self.product(x, by)
        return -x if negative is True else x


def test_numbers_and_flags_reach_the_module_as_they_are() -> None:
    with layertap.open(Repeats()) as model:
        for times, negative in ((1, False), (3, True), (1, True)):
            feed = {"x": X, "times": times, "negative": negative, "by": 0.5}
            run = model.capture([feed] * 3)
            assert model.graph.complete
            calls = [name for name in run if name.startswith("product")]
            assert sum(len(run[name]) > 0 for name in calls) == times
            wanted = X * 0.5**times * (-1 if negative else 1)
            np.testing.assert_array_equal(run["output"].raw, np.concatenate([wanted] * 3))
