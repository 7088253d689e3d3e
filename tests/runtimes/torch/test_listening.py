"""Calls are heard of the thread that captures, of whatever kind, and nobody else notices."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import layertap
from layertap.testing.disturbed import together

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

SCRIPTS = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
CLASSES = (nn.Module, nn.Linear, nn.Sequential, nn.ReLU, threading.Thread)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(autouse=True)
def classes_are_left_as_they_were() -> Any:
    before = [dict(kind.__dict__) for kind in CLASSES]
    yield
    for kind, attributes in zip(CLASSES, before, strict=True):
        assert dict(kind.__dict__) == attributes, kind


def test_one_module_is_captured_and_served_at_once() -> None:
    net, xs = network(), torch.randn(4, 5, 4)
    with torch.no_grad():
        expected = [(net[0](x), net(x)) for x in xs]

    def captures(i: int) -> Any:
        run = model.capture(xs[i], "0")
        np.testing.assert_array_equal(run["0"].raw, expected[i][0].numpy())

    def serves(i: int) -> Any:
        assert torch.equal(net(xs[i]), expected[i][1])

    with layertap.open(net) as model:
        works = [lambda i=i: captures(i) for i in (0, 1)] + [lambda i=i: serves(i) for i in (2, 3)]
        assert together(*works, times=40) == []


def test_threads_that_a_model_starts_belong_to_its_call() -> None:
    class Parallel(nn.Module):
        def __init__(self, pool: Any) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)
            self.pool = pool

        def forward(self, x: Any) -> Any:
            if self.pool is not None:
                return sum(self.pool.map(lambda part: part(x), (self.left, self.right)))
            with ThreadPoolExecutor(2) as pool:
                return sum(pool.map(lambda part: part(x), (self.left, self.right)))

    x = torch.randn(3, 4)
    with ThreadPoolExecutor(2) as pool:
        for net in (Parallel(None), Parallel(pool)):
            run = layertap.open(net).capture([x, x], "left | right")
            for name, capture in run.items():
                value = net.get_submodule(name)(x).detach().numpy()
                np.testing.assert_array_equal(capture.raw, np.concatenate([value, value]))


def test_attach_keeps_callers_apart() -> None:
    net, mine, theirs = network(), torch.randn(2, 4), torch.randn(2, 4)
    with layertap.attach(net, "0") as taps:
        net(mine)
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: (net(theirs), seen.append(taps["0"])))
        thread.start()
        thread.join()
        np.testing.assert_array_equal(taps["0"], net[0](mine).detach().numpy())
        np.testing.assert_array_equal(seen[0], net[0](theirs).detach().numpy())


def test_a_capture_inside_attach_leaves_its_values() -> None:
    net, x = network(), torch.randn(2, 4)
    with layertap.attach(net) as taps:
        net(x)
        before = {name: taps[name] for name in taps}
        layertap.open(net).capture(torch.randn(2, 4))
        assert list(taps) == list(before)
        assert all(np.array_equal(taps[name], value) for name, value in before.items())


class Direct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return self.block.forward(x) + 1


def test_a_forward_that_is_called_directly_is_heard() -> None:
    net, x = Direct(), torch.randn(2, 4)
    value = net.block(x).detach().numpy()
    np.testing.assert_array_equal(layertap.open(net).capture(x)["block"].raw, value)
    calls = (lambda: net(x), lambda: net.forward(x), lambda: net.block.forward(x))
    for call in calls:
        with layertap.attach(net) as taps:
            call()
            np.testing.assert_array_equal(taps["block"], value)


class Child(nn.Linear):
    def forward(self, x: Any) -> Any:
        return super().forward(x) * 2


def test_a_forward_that_calls_that_of_its_base_is_one_call() -> None:
    net, x = nn.Sequential(Child(4, 4), nn.Linear(4, 4)), torch.randn(2, 4)
    run = layertap.open(net).capture(x)
    assert list(run) == ["0", "1", "output"]
    np.testing.assert_array_equal(run["0"].raw, net[0](x).detach().numpy())


def test_hooks_of_whenever_are_seen() -> None:
    net, x = network(), torch.randn(2, 4)
    with layertap.attach(net) as taps:
        handles = [
            net[0].register_forward_hook(lambda module, args, output: output * 0 + 7),
            net[1].register_forward_pre_hook(lambda module, args: (args[0] - 1,)),
        ]
        net(x)
        assert (taps["0"] == 7).all()
        run = layertap.open(net).capture(x, "0 | 1 | kind:argument")
        for handle in handles:
            handle.remove()
    assert (run["0"].raw == 7).all()
    assert (run["1:args.0"].raw == 6).all()


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_checkpoint_computes_anew_replaces_nothing(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.block = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

        def forward(self, x: Any) -> Any:
            x = checkpoint(self.block, self.first(x), use_reentrant=reentrant)
            return checkpoint(self.block, x, use_reentrant=reentrant)

    net = Checkpointed()
    with layertap.attach(net) as taps:
        loss = net(torch.randn(2, 4)).sum()
        before = {name: taps[name] for name in taps}
        loss.backward()
        after = {name: taps[name] for name in taps}
    assert "block.0@1" in before
    assert list(before) == list(after)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert net.block[0].weight.grad is not None


@SCRIPTS
def test_what_users_do_to_a_module_works_under_attach() -> None:
    net, x = network(), torch.randn(2, 4)
    expected = net(x)
    file = io.BytesIO()
    with layertap.attach(net):
        scripted = torch.jit.script(net)
        traced = torch.jit.trace(net, x)
        symbolic = torch.fx.symbolic_trace(net)
        copied = copy.deepcopy(net)
        torch.save(net, file)
        pickled = pickle.loads(pickle.dumps(net))
        batched = torch.vmap(net)(x[None])[0]
    loaded = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    for other in (scripted, traced, symbolic, copied, pickled, loaded):
        assert torch.equal(other(x), expected)
    torch.testing.assert_close(batched, expected)


def test_lazy_modules_under_attach() -> None:
    net, x = nn.Sequential(nn.LazyLinear(4), nn.ReLU()), torch.randn(2, 3)
    with layertap.attach(net) as taps:
        net(x)
        np.testing.assert_array_equal(taps["0"], net[0](x).detach().numpy())


@SCRIPTS
def test_a_scripted_part_is_read_as_one() -> None:
    inner = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()))
    net, x = nn.Sequential(nn.Linear(4, 4), inner, nn.Linear(4, 2)), torch.randn(3, 4)
    statistics = {name: value.clone() for name, value in net.state_dict().items()}
    run = layertap.open(net).capture([x, x])
    assert list(run) == ["0", "1", "2", "output"]
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in statistics.items())
    with torch.no_grad():
        value = inner(net[0](x)).numpy()
    np.testing.assert_allclose(run["1"].raw[:3], value, rtol=1e-6)


def test_values_inside_a_transform_have_no_array() -> None:
    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return torch.vmap(self.inner)(x)

    net, x = Mapped(), torch.randn(3, 2, 4)
    with layertap.open(net) as model:
        run = model.capture(x)
        assert list(run) == ["output"]
        np.testing.assert_allclose(run["output"].raw, net(x).detach().numpy(), rtol=1e-6)
        with pytest.raises(layertap.LayertapError, match="inside of a transform"):
            model.capture(x, "inner")


def test_a_forward_that_differentiates() -> None:
    class Force(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Linear(4, 1)

        def forward(self, x: Any) -> Any:
            x = x.clone().requires_grad_()
            return torch.autograd.grad(self.energy(x).tanh().sum(), x)[0]

    net, x = Force(), torch.randn(2, 4)
    run = layertap.open(net).capture([x, x])
    assert run.provenance["gradients"]
    np.testing.assert_array_equal(run["output"].raw[2:], net(x).numpy())
    assert net.energy.weight.grad is None


def test_what_a_forward_consumes_is_consumed_once_a_batch() -> None:
    class Consumes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.numbers, self.same = iter(range(100)), nn.Identity()

        def forward(self, x: Any) -> Any:
            return self.same(x + next(self.numbers))

    net = Consumes()
    run = layertap.open(net).capture([torch.zeros(2, 1)] * 3)
    assert run["same"].raw.ravel().tolist() == [0, 0, 1, 1, 2, 2]
    assert next(net.numbers) == 3


def test_each_batch_draws_anew_where_that_is_asked_for() -> None:
    net, x = nn.Sequential(nn.Dropout(0.5)).train(), torch.ones(1, 1000)
    same = layertap.open(net).capture([x, x], "0")["0"].raw
    np.testing.assert_array_equal(same[0], same[1])
    torch.manual_seed(7)
    expected = [net(x).numpy()[0] for _ in range(2)]
    torch.manual_seed(7)
    anew = layertap.open(net, random="advance").capture([x, x], "0")["0"].raw
    np.testing.assert_array_equal(anew, expected)
