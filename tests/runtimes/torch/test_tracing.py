"""Names, order, shapes and edges of the tap points of PyTorch modules."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import layertap
from layertap.core.select import select
from layertap.errors import FeedError, NoSuchTap, RunError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

X = np.arange(12, dtype=np.float32).reshape(3, 4) / 12


def computed(model: layertap.Model, x: Any) -> list[str]:
    return [tap.name for tap in model.trace(x) if tap.kind == "activation"]


@dataclass
class Result:
    hidden: Any
    note: str
    pair: tuple[Any, Any]


class Returns(nn.Module):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Any) -> Any:
        return self.make(x)


class Around(nn.Module):
    """Calls ``block`` and returns its input."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Any) -> Any:
        self.block(x)
        return x + 0


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda x: (x, x + 1), ["block", "block:1"]),
        (lambda x: [x], ["block"]),
        (lambda x: (None, x), ["block:1"]),
        (lambda x: ((x, x + 1), x + 2), ["block", "block:0.1", "block:1"]),
        (lambda x: {"h": x, "pair": (x + 1, x + 2)}, ["block:h", "block:pair.0", "block:pair.1"]),
        (lambda x: OrderedDict(logits=x), ["block:logits"]),
        (lambda x: Result(x, "text", (x, x)), ["block:hidden", "block:pair.0", "block:pair.1"]),
        (lambda x: (x, {"h": x + 1}, 3, "text"), ["block", "block:1.h"]),
        (lambda x: {1: x, "1": x + 1}, ["block:1", "block:1~1"]),
        (lambda x: None, []),
    ],
)
def test_names_of_nested_outputs(make: Any, names: list[str]) -> None:
    with layertap.open(Around(Returns(make))) as model:
        found = [tap.name for tap in model.trace(X) if tap.shape and tap.kind == "activation"]
        assert found == names
        run = model.capture(X, taps=["output", *names])
        assert list(run) == [*names, "output"]
        np.testing.assert_array_equal(run["output"].values, X)


def test_states_of_recurrent_layers() -> None:
    lstm = nn.LSTM(4, 5, num_layers=2, batch_first=True)
    x = torch.randn(3, 6, 4)
    with torch.no_grad():
        output, (h, c) = lstm(x)
    with layertap.open(nn.Sequential(OrderedDict(lstm=lstm))) as model:
        run = model.capture(x, taps="lstm*")
        assert list(run) == ["lstm", "lstm:1.0", "lstm:1.1"]
        np.testing.assert_array_equal(run["lstm"].values, output.numpy())
        np.testing.assert_array_equal(run["lstm:1.0"].values, h.numpy().swapaxes(0, 1))
        np.testing.assert_array_equal(run["lstm:1.1"].values, c.numpy().swapaxes(0, 1))
        assert [model.graph[name].batch_axis for name in run] == [0, 1, 1]


class Reuses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 4)
        self.dense_1 = nn.Linear(4, 4)
        self.again = self.dense

    def forward(self, x: Any) -> Any:
        return self.again(self.dense_1(self.dense(x)))


def test_every_call_of_a_reused_module_and_names_with_a_number() -> None:
    net = Reuses()
    with layertap.open(net) as model:
        assert computed(model, X) == ["dense", "dense_1", "dense@1"]
        run = model.capture(X)
    with torch.no_grad():
        first = net.dense(torch.from_numpy(X))
        second = net.dense_1(first)
        third = net.dense(second)
    for name, value in (("dense", first), ("dense_1", second), ("dense@1", third)):
        np.testing.assert_array_equal(run[name].values, value.numpy())


def test_a_module_under_two_names() -> None:
    with layertap.open(Reuses()) as model:
        graph = model.trace(X)
        assert graph["again"] is graph["dense"]
        assert graph["again@1"].name == "dense@1"
        assert graph["again.weight"].name == "dense.weight"
        assert select(graph, "again@1")[0].name == "dense@1"
        assert list(model.capture(X, taps=["again"])) == ["dense"]
        np.testing.assert_array_equal(
            model.read("again.bias"), model.session.catalog.root.dense.bias.detach().numpy()
        )


def test_tied_parameters_are_listed_once() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    with layertap.open(net) as model:
        weights = [tap.name for tap in model.graph.of_kind("weight")]
        assert weights == ["0.weight", "0.bias", "1.bias"]
        assert model.graph["1.weight"].name == "0.weight"


class Named(nn.Module):
    """Children with the names that layertap gives to inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Linear(4, 4)
        self.output = nn.Linear(4, 4)
        self.add_module("x:1", nn.Tanh())
        self.add_module("x@1", nn.Tanh())

    def forward(self, x: Any) -> Any:
        a = self.output(self.x(self.x(x)))
        return self._modules["x:1"](a), self._modules["x@1"](a)


def test_names_stay_unique_where_the_network_uses_them_up() -> None:
    net = Named()
    with layertap.open(net) as model:
        graph = model.trace(X)
        assert graph["x"].kind == graph["output"].kind == "activation"
        assert [tap.name for tap in graph.inputs] == ["x~1"]
        assert [tap.name for tap in graph.outputs] == ["output~1", "output:1"]
        assert graph["x@1"].op == "Tanh"
        run = model.capture(X)
        with torch.no_grad():
            twice = net.x(net.x(torch.from_numpy(X)))
        np.testing.assert_array_equal(run["x@1~1"].values, twice.numpy())


class Arguments(nn.Module):
    def forward(self, x: Any, scale: Any = None, *, mask: Any = None, names: Any = ()) -> Any:
        return x if mask is None else x * mask


class Calls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Arguments()

    def forward(self, x: Any, *rest: Any, mask: Any = None, **more: Any) -> Any:
        return self.inner(x, (x + 1, None), mask=mask, names={"k": x + 2})


def test_arguments_of_modules_and_inputs_of_the_network() -> None:
    mask = np.ones((3, 4), np.float32) / 2
    feed = {"x": X, "rest.0": X + 5, "mask": mask, "other": X + 6}
    with layertap.open(Calls()) as model:
        assert [spec.name for spec in model.session.inputs] == ["x", "*rest", "mask", "**more"]
        run = model.capture(feed, taps="kind:argument | kind:input")
        assert list(run) == [
            "x", "rest.0", "mask", "other",
            "inner:args.0", "inner:args.1.0", "inner:kwargs.mask", "inner:kwargs.names.k",
        ]  # fmt: skip
        np.testing.assert_array_equal(run["inner:args.1.0"].values, X + 1)
        np.testing.assert_array_equal(run["inner:kwargs.names.k"].values, X + 2)
        np.testing.assert_array_equal(run["inner:kwargs.mask"].values, mask)
        np.testing.assert_array_equal(run["other"].values, X + 6)
        assert model.graph["inner:kwargs.mask"].operands == ("mask",)


def test_edges_follow_tensors() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
    with layertap.open(net) as model:
        graph = model.trace(X)
    assert graph["0"].operands == ("input",)
    assert graph["1.0"].operands == ("0",)
    assert graph["1.1"].operands == ("1.0",)
    assert graph["1"].operands == ("1.1",)
    assert graph["output"].operands == ("1",)
    assert [tap.name for tap in graph.consumers(graph["1.0"])] == ["1.1:args.0", "1.1"]


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(10, 3), nn.Embedding(10, 3)

    def forward(self, x: Any) -> Any:
        return self.words(x) + self.places(torch.arange(x.shape[1]))


def test_as_many_steps_as_samples() -> None:
    x = np.arange(30).reshape(10, 3) % 10
    with layertap.open(Positions()) as model:
        for size in (3, 5):
            run = model.capture(x, batch_size=size)
            assert [tap.per for tap in run.taps] == ["sample", "batch", "sample"]
            assert run["places"].raw.shape == (-(-10 // size), 3, 3)
            assert run["words"].samples.tolist() == list(range(10))


def test_the_graph_knows_what_autocast_makes_of_it() -> None:
    with layertap.open(nn.Sequential(nn.Linear(3, 2))) as model:
        for enabled in (False, True, False):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                run = model.capture(np.ones((1, 3)), "0")
            dtype = "bfloat16" if enabled else "float32"
            assert run["0"].raw.dtype.name == run["0"].tap.dtype == dtype


def test_a_network_that_is_no_longer_the_one_that_was_opened() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with layertap.open(net) as model:
        model.capture(np.ones((1, 3)))
        net[0] = nn.Linear(3, 4)
        with pytest.raises(RunError, match="replaced since the model was opened"):
            model.capture(np.ones((1, 3)))


def test_graph_before_an_example() -> None:
    with layertap.open(Reuses()) as model:
        graph = model.graph
        assert not graph.complete
        assert [t.name for t in graph.of_kind("activation", "output")] == [
            "dense", "dense_1", "output",
        ]  # fmt: skip
        assert all(tap.shape is None for tap in graph if tap.kind != "weight")
        numbers = {tap.name: tap.index for tap in graph}
        traced = model.trace(X)
        assert traced.complete
        assert {name: traced[name].index for name in numbers} == numbers


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.warm, self.cold = nn.Linear(4, 4), nn.Linear(4, 4)
        self.ran = 0

    def forward(self, x: Any) -> Any:
        self.ran += 1
        return self.warm(x) if x.sum() > 0 else self.cold(x)


def test_control_flow_that_depends_on_values() -> None:
    net = Branches()
    with layertap.open(net) as model:
        assert model.trace(X)["cold"].shape is None
        run = model.capture([X, -X, X], taps="warm | cold")
    assert net.ran == 1 + 3
    assert len(run["warm"]) == 6
    with torch.no_grad():
        cold = net.cold(torch.from_numpy(-X)).numpy()
    # Nothing was proven of what the first batch did not call.
    np.testing.assert_array_equal(run["cold"].values, cold[None])
    assert run["cold"].samples.tolist() == [1]


class Remembers(nn.Module):
    """Keeps things of all sorts on every call."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Any] = []
        self.stats = {"calls": 0, "inner": {"seen": set()}}
        self.latest: Any = None
        self.register_buffer("total", torch.zeros(4))
        self.plain = torch.zeros(4)

    def forward(self, x: Any) -> Any:
        self.history.append(x)
        self.stats["calls"] += 1
        self.stats["inner"]["seen"].add(self.stats["calls"])
        self.latest = x
        self.total = self.total + x.sum(0).detach()
        self.plain += 1
        return x * 2


def test_state_is_as_before_and_python_attributes_as_after_plain_calls() -> None:
    net = Remembers()
    total, generator = net.total, torch.get_rng_state()
    with layertap.open(net) as model:
        model.trace(X)
        model.capture([X, X])  # of the form that was traced: a forward for each batch
    assert net.total is total
    assert torch.equal(total, torch.zeros(4))
    assert torch.equal(torch.get_rng_state(), generator)
    assert [type(value) for value in net.history] == [torch.Tensor] * 3
    assert all(np.array_equal(value.numpy(), X) for value in net.history)
    assert net.stats["calls"] == 3
    assert net.plain.tolist() == [3] * 4


def test_an_input_that_does_not_fit() -> None:
    with layertap.open(nn.Linear(4, 2)) as model:
        with pytest.raises(FeedError, match="does not take this input"):
            model.trace(np.zeros((2, 5), np.float32))
        with pytest.raises(FeedError, match="no input 'y'"):
            model.trace({"y": X})


def test_unknown_names_have_near_ones() -> None:
    with layertap.open(Reuses()) as model, pytest.raises(NoSuchTap, match="dense_1"):
        model.capture(X, taps="dense_2")
