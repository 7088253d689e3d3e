"""What a network is called with is its own: no forward reaches what the caller gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layertap
from layertap.errors import FeedError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from layertap.runtimes.torch.feeding import Arguments  # noqa: E402

X = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)


class Two(nn.Module):
    def forward(self, ids: Any, /, mask: Any, *more: Any, scale: float = 1.0) -> Any:
        return ids * mask * scale


class Kept(nn.Module):
    """Does something to what it is given, and keeps what that gave."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.change, self.kept = change, []

    def forward(self, x: Any) -> Any:
        result = x * 2
        self.kept.append(self.change(x))
        return result


CHANGES: dict[str, Callable[[Any], Any]] = {
    "looked at": lambda x: x.sum(),
    "kept": lambda x: x,
    "kept as an array": lambda x: x.numpy(),
    "written": lambda x: x.add_(1),
    "written as data": lambda x: x.data.mul_(3),
    "written as an array": lambda x: x.numpy().fill(7),
    "reshaped": lambda x: x.resize_(2, 3),
    "with gradients": lambda x: x.requires_grad_(),
}


@pytest.mark.parametrize("kind", [np.ndarray, torch.Tensor])
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_done_to_an_input_each_batch_gets_its_own(change: str, kind: type) -> None:
    batches = [X * (i + 1) for i in range(4)]
    given = [b.copy() if kind is np.ndarray else torch.from_numpy(b.copy()) for b in batches]
    net = Kept(CHANGES[change])
    run = layertap.open(net).capture(given, "output | kind:input")
    np.testing.assert_array_equal(run["output"].raw, np.concatenate(batches) * 2)
    np.testing.assert_array_equal(run["x"].raw, np.concatenate(batches))
    for batch, value in zip(batches, given, strict=True):
        np.testing.assert_array_equal(np.asarray(value), batch)
    assert len(net.kept) == len(batches)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_tensors_are_aligned_as_pytorch_aligns_its_own(dtype: str) -> None:
    """So that vectorized kernels take the same way, and round alike."""
    arguments = Arguments(nn.Linear(6, 6))
    kept = []
    for rows in range(1, 40):
        x = np.ones((rows, 3), dtype)
        (tensor,) = arguments.bind({"input": x[::-1, ::-1]}).args
        assert tensor.data_ptr() % 64 == 0
        assert tensor.is_contiguous()
        kept.append(tensor)


def test_arguments_go_where_the_signature_has_them() -> None:
    arguments = Arguments(Two())
    assert [spec.name for spec in arguments.inputs] == ["ids", "mask", "*more", "scale"]
    call = arguments.bind({"scale": 2.0, "ids": X, "mask": X > 0, "more.0": X})
    assert [type(value) for value in call.args] == [torch.Tensor] * 3
    assert call.kwargs == {"scale": 2.0}
    assert list(arguments.named(call.args, call.kwargs)) == ["ids", "mask", "more.0", "scale"]
    with pytest.raises(FeedError, match="'ids' is missing"):
        arguments.bind({"mask": X, "more.0": X})


def test_numbers_of_python_become_what_the_network_computes_in() -> None:
    arguments = Arguments(nn.Linear(6, 6))
    (tensor,) = arguments.bind({"input": X.astype(np.float64)}).args
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), X)
    (tensor,) = arguments.bind({"input": X.astype(">f4")}).args
    np.testing.assert_array_equal(tensor.numpy(), X)
