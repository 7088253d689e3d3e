"""The parameters and buffers of a network, by name."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from layertap.runtimes.torch.catalog import Catalog  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def nested() -> nn.Module:
    """A child within a child, buffers, and a parameter of the root's own."""
    inner = nn.ModuleDict({"norm": nn.BatchNorm1d(3), "1": nn.Linear(3, 3)})
    net = nn.Sequential(inner, nn.Linear(3, 2, bias=False))
    net.register_parameter("scale", nn.Parameter(torch.ones(1)))
    return net


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    return net


@pytest.mark.parametrize("make", [nested, tied])
def test_each_tensor_is_found_under_the_name_that_pytorch_gives_it(make) -> None:
    net = make()
    named = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    catalog = Catalog(net)
    assert dict(catalog.tensors()).keys() == named.keys()
    assert all(catalog.tensor(name) is tensor for name, tensor in named.items())


def test_tensors_inside_of_torchscript_are_found() -> None:
    block = torch.jit.script(nn.Sequential(nn.Linear(3, 2)))
    net = nn.Sequential(block, nn.Linear(2, 2))
    catalog = Catalog(net)
    assert set(dict(catalog.tensors())) == {"0.0.weight", "0.0.bias", "1.weight", "1.bias"}
    assert torch.equal(catalog.tensor("0.0.weight"), dict(block.named_parameters())["0.weight"])


def test_tensors_of_a_compiled_part_are_found_under_their_own_names() -> None:
    inner = nn.Linear(3, 2)
    catalog = Catalog(nn.Sequential(torch.compile(inner)))
    assert catalog.tensor("0.weight") is inner.weight


def test_what_takes_the_place_of_a_part_is_found_and_what_is_gone_is_not() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    catalog = Catalog(net)
    net[0] = nn.Linear(3, 3)
    net[1].bias = None
    assert catalog.tensor("0.weight") is net[0].weight
    for name in ("1.bias", "2.weight", "weight", "0.weight.more"):
        with pytest.raises(KeyError):
            catalog.tensor(name)
