"""Captured values are those of the moment, belong to the receiver, and cost the model nothing."""

from __future__ import annotations

import contextlib
import gc
import random
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

import layertap
from layertap.core.dtypes import Array
from layertap.errors import RunError, RuntimeFailure, Untappable

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

X = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)


def reader(
    model: layertap.Model, names: list[str], x: Any = X
) -> Callable[[Any], dict[str, Array]]:
    """A prepared pass as a function from an input to values by name."""
    model.trace(x)
    run_pass = model.session.prepare([tap for tap in model.graph if tap.name in names])
    name = model.session.inputs[0].name

    def read(x: Any) -> dict[str, Array]:
        found: dict[str, Array] = {}
        run_pass({name: x}, lambda tap, value: found.__setitem__(tap.name, value[0]))
        return found

    return read


class Writes(nn.Module):
    """Writes over the output of ``first`` in a way that depends on the sign of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.last = nn.Linear(6, 6)
        self.register_buffer("steps", torch.zeros(()))
        self.runs: list[int] = []

    def forward(self, x: Any) -> Any:
        self.steps += 1
        self.runs.append(1)
        y = self.first(x)
        z = self.last(y)
        if float(x.sum()) < 0:
            y.relu_()
        return z


def test_a_value_that_only_a_later_batch_overwrites() -> None:
    net = Writes()
    x = np.abs(X)
    with layertap.open(net) as model:
        read = reader(model, ["first", "last"], x)
        for batch in (x, x, -x, x, -x):
            values = read(batch)
            with torch.no_grad():
                first = net.first(torch.from_numpy(batch))
            np.testing.assert_array_equal(values["first"], first.numpy())
            np.testing.assert_array_equal(values["last"], net.last(first).detach().numpy())
    assert float(net.steps) == 0
    assert len(net.runs) == 1 + 5  # the example and one forward for each batch


class Block(nn.Module):
    """Returns one tensor under several names, which is written to only after ``count`` calls."""

    calls: ClassVar[list[int]] = []

    def __init__(self, count: int) -> None:
        super().__init__()
        self.dense, self.same, self.last = nn.Linear(6, 6), nn.Identity(), nn.ReLU(inplace=True)
        self.count = count

    def forward(self, x: Any) -> Any:
        self.calls.append(1)
        y = self.same(self.dense(x))
        if len(self.calls) > self.count:
            self.last(y)
        return y


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 100])
def test_one_tensor_under_several_names_has_the_value_of_each(count: int) -> None:
    """Also where something is written to it between two of them, or only in some batches."""
    net = nn.Sequential(Block(count), nn.Identity(), nn.Linear(6, 6))
    names = ["0.dense", "0.same", "0", "1"]
    Block.calls.clear()
    with layertap.open(net) as model:
        read = reader(model, names)
        for step in range(8):
            calls = len(Block.calls)
            values = read(X + step)
            dense = net[0].dense(torch.from_numpy(X + step)).detach().numpy()
            end = dense if calls < count else np.maximum(dense, 0)
            for name, value in values.items():
                expected = dense if name in ("0.dense", "0.same") else end
                np.testing.assert_array_equal(value, expected, name)


def test_captures_of_one_tensor_under_several_names_can_be_written_to() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Identity(), nn.Linear(6, 6))
    with layertap.open(net) as model:
        model.capture(X, taps="0 | 1")
        ragged = [np.ones((2, length, 6), np.float32) for length in (3, 3, 5)]
        for feed in (X, [X, X], [X, X[:2]], ragged):
            run = model.capture(feed, taps="0 | 1")
            before = [row.copy() for row in run["1"].values]
            for row in run["0"].values:
                row[:] = -1
            assert not any((row == -1).all() for row in run["0"].values)
            for row, copy in zip(run["1"].values, before, strict=True):
                np.testing.assert_array_equal(row, copy)


class Static(nn.Module):
    """Returns the same memory every time: a buffer, or a tensor that is no buffer."""

    def __init__(self, registered: bool) -> None:
        super().__init__()
        if registered:
            self.register_buffer("out", torch.zeros(4, 6))
        else:
            self.__dict__["out"] = torch.zeros(4, 6)

    def forward(self, x: Any) -> Any:
        torch.mul(x, 2, out=self.out)
        return self.out


@pytest.mark.parametrize("registered", [True, False])
def test_memory_that_the_module_uses_again(registered: bool) -> None:
    net = nn.Sequential(Static(registered), nn.Identity())
    with layertap.open(net) as model:
        read = reader(model, ["0", "1", "output"])
        kept = [read(X * i) for i in range(4)]
    for i, values in enumerate(kept):
        for value in values.values():
            np.testing.assert_array_equal(value, X * i * 2)
    assert net[0].out.any() != registered  # a buffer is put back


class Hands(nn.Module):
    """Returns what it was given, its weight, views, and what it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 6))
        self.kept: Any = None

    def forward(self, x: Any) -> Any:
        y = x + self.weight
        self.kept = y
        return x, self.weight, y, y[:, :1], y.t(), y.expand(2, 4, 6)


def test_values_share_memory_with_nothing() -> None:
    net = nn.Sequential(Hands())
    names = ["0", "0:1", "0:2", "0:3", "0:4", "0:5", "output", "input"]
    with layertap.open(net) as model:
        read = reader(model, names)
        x = X.copy()
        read(x)
        values = read(x)
        assert list(values) == ["input", *names[:-1]]
        kept = [net[0].weight.detach().numpy(), x, *values.values()]
        for i, a in enumerate(kept):
            assert not any(np.shares_memory(a, b) for b in kept[i + 1 :])
        for value in values.values():
            value[...] = 9
        np.testing.assert_array_equal(read(x)["0:2"], X + 1)
    assert bool((net[0].weight == 1).all())


def test_an_input_that_the_model_writes_to() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.add_(1)

    for x in (X.copy(), torch.from_numpy(X.copy())):
        with layertap.open(InPlace()) as model:
            run = model.capture([x, x], taps="output | kind:input")
        np.testing.assert_array_equal(np.asarray(x), X)
        np.testing.assert_array_equal(run["x"].values[4:], X)
        np.testing.assert_array_equal(run["output"].values[4:], X + 1)


class Counts(nn.Module):
    def __init__(self, log: list[str], name: str) -> None:
        super().__init__()
        self.log, self.name = log, name

    def forward(self, x: Any) -> Any:
        with contextlib.suppress(Exception):
            self.log.append(self.name)
        return x + 1


class Defends(nn.Module):
    """Takes every exception for a failure of its first choice."""

    def __init__(self, catch: type[BaseException], log: list[str]) -> None:
        super().__init__()
        self.first, self.second = Counts(log, "first"), Counts(log, "second")
        self.catch = catch

    def forward(self, x: Any) -> Any:
        try:
            return self.first(x)
        except self.catch:
            return self.second(x)


def test_what_may_have_something_open_is_run_to_its_end() -> None:
    """An early end by an exception would be taken for a failure, or leave a lock held."""
    log: list[str] = []
    lock = threading.Lock()

    class Locks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Counts(log, "first"), Counts(log, "second")

        def forward(self, x: Any) -> Any:
            lock.acquire()
            x = self.second(self.first(x))
            lock.release()
            return x

    for net in (Locks(), nn.Sequential(Defends(BaseException, log), Locks(), Counts(log, "after"))):
        first = "first" if isinstance(net, Locks) else "1.first"
        with layertap.open(net) as model:
            read = reader(model, [first])
            log.clear()
            values = read(X)
        assert not lock.locked()
        assert log[-2:] == ["first", "second"]  # and not "after": the sequence is cut between parts
        np.testing.assert_array_equal(values[first], X + 1 if isinstance(net, Locks) else X + 1 + 1)


def shared_parts() -> nn.Sequential:
    """Calls a module twice, and another one from two of its parts."""
    act, dense = nn.Tanh(), nn.Linear(6, 6)
    inner = [nn.Sequential(nn.Linear(6, 6), dense), nn.Sequential(dense, nn.Linear(6, 6))]
    return nn.Sequential(nn.Linear(6, 6), act, inner[0], act, inner[1], nn.Linear(6, 6))


@pytest.mark.parametrize(
    ("tap", "parts"),
    [
        ("0", 1),
        ("1", 2),
        ("2.0", 3),
        ("2.1", 3),
        ("2", 3),
        ("1@1", 4),
        ("2.1@1", 5),
        ("4.1", 5),
        ("4", 5),
    ],
)
def test_a_sequence_runs_as_far_as_the_last_tap(tap: str, parts: int) -> None:
    net, ran = shared_parts(), []
    for part in set(net):
        part.register_forward_pre_hook(lambda module, args: ran.append(module))
    oracle = nn.Sequential(*list(net)[:parts])
    with torch.no_grad():
        x = oracle[:-1](torch.from_numpy(X))
        whole = oracle[-1](x)
        if "." in tap:
            inner = list(oracle[-1])
            whole = inner[0](x) if tap in ("2.0", "2.1@1") else inner[1](inner[0](x))
    with layertap.open(net) as model:
        read = reader(model, [tap])
        for _ in range(4):
            ran.clear()
            np.testing.assert_array_equal(read(X)[tap], whole.numpy())
            assert len(ran) == parts


def test_hooks_of_a_sequence_itself() -> None:
    """They run as in a call without taps, as far as that gets."""
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    seen: list[Any] = []
    with layertap.open(net) as model:
        read = reader(model, ["0"])
        plain = [read(X)["0"] for _ in range(3)][-1]
        doubled = [read(X * 2)["0"] for _ in range(2)][-1]
        handles = [
            net.register_forward_pre_hook(lambda module, args: (args[0] * 2,)),
            net.register_forward_hook(lambda module, args, output: seen.append(output)),
        ]
        np.testing.assert_array_equal(read(X)["0"], doubled)
        for handle in handles:
            handle.remove()
        net.forward = lambda x: nn.Sequential.forward(net, x * 2)
        np.testing.assert_array_equal(read(X)["0"], doubled)
        del net.forward
        np.testing.assert_array_equal(read(X)["0"], plain)
    assert len(seen) == 1  # a sequence with hooks is run to its end


class Pair(nn.Module):
    def forward(self, x: Any) -> Any:
        return x, x * 2


def test_what_the_parts_of_a_sequence_return() -> None:
    """Through in-place parts, one that is called twice, hooks, and tuples; and within parts."""
    act, inner = nn.ReLU(inplace=True), nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    net = nn.Sequential(nn.Linear(6, 6), act, inner, nn.Linear(6, 6), act, Pair())
    net[3].register_forward_hook(lambda module, args, output: output + 1)
    with torch.no_grad():
        x = torch.from_numpy(X)
        expected = {"0": net[0](x), "1": net[0](x).relu(), "2.0": inner[0](net[0](x).relu())}
        expected["2"] = torch.tanh(expected["2.0"])
        expected["3"] = net[3](expected["2"])
        expected["1@1"] = expected["output"] = expected["5"] = expected["3"].relu()
        expected["output:1"] = expected["5:1"] = expected["5"] * 2
    choices = [[*expected], ["0", "1", "2"], ["0", "3"], ["2.0"], ["0", "5:1"], ["3", "output"]]
    for names in choices:
        with layertap.open(net) as model:
            read = reader(model, names)
            for _ in range(4):
                values = read(X)
                assert list(values) == [tap.name for tap in model.graph if tap.name in names]
                for name, value in values.items():
                    np.testing.assert_array_equal(value, expected[name].numpy(), name)


def test_a_sequence_that_grows() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    with layertap.open(net) as model:
        read = reader(model, ["0", "output"])
        for length in (2, 2, 2, 3, 3):
            while len(net) < length:
                net.append(nn.Linear(6, 6))
            with torch.no_grad():
                expected = net(torch.from_numpy(X)).numpy()
            np.testing.assert_array_equal(read(X)["output"], expected)


def test_hooks_of_the_users_run_and_are_left_alone() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    seen: list[str] = []
    net[0].register_forward_hook(lambda m, a, out: seen.append("after") or out * 2)
    net[0].register_forward_pre_hook(lambda m, a: seen.append("before") or (a[0] + 1,))
    hooks = dict(net[0]._forward_hooks), dict(net[0]._forward_pre_hooks)
    with layertap.open(net) as model:
        read = reader(model, ["0", "0:args.0", "1"])
        read(X)
        values = read(X)
    with torch.no_grad():
        expected = nn.functional.linear(torch.from_numpy(X) + 1, net[0].weight, net[0].bias) * 2
    np.testing.assert_array_equal(values["0"], expected.numpy())
    np.testing.assert_array_equal(values["0:args.0"], X + 1)
    assert (dict(net[0]._forward_hooks), dict(net[0]._forward_pre_hooks)) == hooks
    assert not net[0]._forward_pre_hooks_with_kwargs
    assert seen[:2] == ["before", "after"]


def test_a_forward_of_the_users_own_on_the_instance_is_put_back() -> None:
    net = nn.Sequential(nn.Linear(6, 6))
    mine = lambda x: x * 3  # noqa: E731
    net[0].forward = mine
    with layertap.open(net) as model:
        np.testing.assert_array_equal(model.capture(X)["0"].values, X * 3)
    assert net[0].__dict__["forward"] is mine


class Fails(nn.Module):
    def forward(self, x: Any) -> Any:
        if len(x) == 3:
            raise ArithmeticError("three")
        return x


def test_everything_is_as_before_after_a_failure() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(), Fails()).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    generator = torch.get_rng_state()
    with layertap.open(net) as model:
        read = reader(model, ["0", "1", "2", "3"])
        for first in (X[:3], X, X[:3]):
            if len(first) == 3:
                with pytest.raises(RuntimeFailure, match="ArithmeticError: three") as caught:
                    read(first)
                assert isinstance(caught.value.__cause__, ArithmeticError)
            else:
                read(first)
            assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
            assert torch.equal(torch.get_rng_state(), generator)
            assert all("forward" not in module.__dict__ for module in net.modules())
            assert net.training


def test_switching_to_training_between_batches() -> None:
    net = nn.Sequential(nn.BatchNorm1d(6)).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with layertap.open(net) as model:
        read = reader(model, ["0"])
        read(X)
        read(X)
        net.train()
        read(X)
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_dropout_that_is_switched_on_between_batches_is_drawn_anew_from_the_same_state() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 6)).eval()
    with layertap.open(net) as model:
        read = reader(model, ["1"])
        for _ in range(3):
            assert read(X)["1"].all()
        net.train()
        before = torch.get_rng_state()
        values = [read(X)["1"] for _ in range(3)]
        assert torch.equal(torch.get_rng_state(), before)
    assert not values[0].all()
    for value in values[1:]:
        np.testing.assert_array_equal(value, values[0])


def test_what_the_user_does_to_the_model_between_batches_stays() -> None:
    net = nn.Sequential(nn.BatchNorm1d(6)).train()
    with layertap.open(net) as model:
        read = reader(model, ["0"])
        read(X)
        net[0].running_mean.fill_(5)
        net[0].running_var = torch.full((6,), 7.0)
        read(X)
        read(X)
    assert bool((net[0].running_mean == 5).all())
    assert bool((net[0].running_var == 7).all())


def test_random_generators_of_python_and_numpy() -> None:
    class Draws(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * random.random() * np.random.random() * torch.rand(())

    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with layertap.open(nn.Sequential(Draws())) as model:
        read = reader(model, ["0"])
        first, second = read(X)["0"], read(X)["0"]
    assert before[0] == random.getstate()
    assert before[1] == np.random.get_state()[1].tolist()
    assert before[2] == torch.get_rng_state().tolist()
    np.testing.assert_array_equal(first, second)


class Learns(nn.Module):
    """Writes to its parameter from call ``since`` on."""

    def __init__(self, write: Callable[[Any], Any], since: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6))
        self.write, self.since, self.calls = write, since, 0

    def forward(self, x: Any) -> Any:
        if self.calls >= self.since:
            self.write(self)
        self.calls += 1
        return x * self.weight


WRITES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda net: net.weight.add_(1),
    "as data": lambda net: net.weight.data.add_(1),
    "another one": lambda net: setattr(net, "weight", nn.Parameter(net.weight + 1)),
    "other data": lambda net: setattr(net.weight, "data", net.weight.data + 1),
    "a view": lambda net: net.weight.data[:3].add_(1),
}


@pytest.mark.parametrize("write", WRITES)
def test_parameters_that_a_forward_writes_to_are_put_back(write: str) -> None:
    net = Learns(WRITES[write])
    weight, memory = net.weight, net.weight.data_ptr()
    run = layertap.open(net).capture([X, X, X])
    expected = X * np.repeat([1, 1 if write != "a view" else 0], 3).astype(np.float32)
    np.testing.assert_array_equal(run["output"].raw, np.concatenate([expected] * 3))
    assert net.weight is weight
    assert weight.data_ptr() == memory
    assert not weight.any()


def test_a_parameter_that_is_written_to_for_the_first_time_later_is_an_error() -> None:
    net = Learns(WRITES["in place"], since=1)
    with layertap.open(net) as model:
        with pytest.raises(RuntimeFailure, match="wrote to a parameter as no batch before"):
            model.capture([X, X, X])
        before = net.weight.detach().clone()
        model.capture([X, X])  # from now on it is known
        assert torch.equal(net.weight, before)


def test_gradients_and_grad_mode() -> None:
    net = nn.Sequential(nn.Linear(6, 6))
    loss = net(torch.from_numpy(X)).sum()
    with layertap.open(net) as model:
        model.capture(X)
        assert torch.is_grad_enabled()
    loss.backward()
    assert net[0].weight.grad is not None


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("made_inside", [False, True])
def test_inference_mode(made_inside: bool, gradients: bool) -> None:
    with torch.inference_mode(made_inside):
        net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.BatchNorm1d(6)).train()
    with torch.inference_mode(), torch.set_grad_enabled(gradients), layertap.open(net) as model:
        read = reader(model, ["0", "1"])
        read(X)
        values = read(X)
        first = nn.functional.linear(torch.from_numpy(X), net[0].weight, net[0].bias)
        np.testing.assert_array_equal(values["0"], first.numpy())
        np.testing.assert_array_equal(values["1"], first.relu().numpy())
        assert not net[2].running_mean.any()
        assert torch.is_grad_enabled() == gradients


def test_inference_mode_inside_the_model() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)

        @torch.inference_mode()
        def forward(self, x: Any) -> Any:
            return self.first(x).zero_()

    net = Inside()
    with layertap.open(net) as model:
        read = reader(model, ["first", "output"])
        read(X)
        values = read(X)
    np.testing.assert_array_equal(values["first"], net.first(torch.from_numpy(X)).detach().numpy())
    assert not values["output"].any()


def test_a_module_whose_weights_are_used_without_calling_it() -> None:
    x = torch.randn(2, 3, 8)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    with layertap.open(attention) as model:
        with pytest.raises(RunError, match="did not call it"):
            model.capture((x, x, x), "out_proj")
        assert len(model.capture((x, x, x), "*")["out_proj"]) == 0


def test_an_encoder_keeps_its_fused_kernel() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        bare = net(x).numpy()
    with layertap.open(net) as model:
        run = model.capture(x)
        assert list(run["layers.1"].tap.operands) == ["layers.0"]
        assert run["output"].raw.tobytes() == bare.tobytes()
        with pytest.raises(Untappable, match="fused") as caught:
            model.capture(x, taps="*linear1")
        assert "fast_path=False" in caught.value.hint
    with layertap.open(net, fast_path=False) as model:
        assert not model.session.capabilities.bit_exact
        run = model.capture(x)
        assert run["layers.0.linear1"].values.shape == (3, 5, 16)
        np.testing.assert_allclose(run["output"].values, bare, atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("way", ["wrapper", "in place", "inside"])
def test_compiled_modules_give_values(way: str) -> None:
    net: Any = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ReLU(inplace=True)))
    source = net
    if way == "wrapper":
        source = torch.compile(net, backend="eager")
    elif way == "in place":
        net.compile(backend="eager")
    else:
        net[1] = torch.compile(net[1], backend="eager")
    with torch.no_grad():
        expected = source(torch.from_numpy(X)).numpy()
    with layertap.open(source) as model:
        assert not model.session.capabilities.bit_exact
        run = model.capture([X, X])
        assert list(run) == ["0", "1.0", "1", "output"]
        np.testing.assert_allclose(run["1.0"].values[4:], expected, rtol=1e-6)


def test_low_precision_and_complex_values() -> None:
    class Casts(nn.Module):
        def forward(self, x: Any) -> Any:
            return (
                x.bfloat16(), x.to(torch.float8_e4m3fn), x.half(), x > 0, x.long(),
                torch.complex(x, x).conj(), x.to(torch.uint16),
            )  # fmt: skip

    with layertap.open(nn.Sequential(Casts())) as model:
        run = model.capture([np.abs(X), np.abs(X)], taps="0*")
    names = [capture.raw.dtype.name for capture in run.values()]
    assert names == [
        "bfloat16", "float8_e4m3fn", "float16", "bool", "int64", "complex64", "uint16",
    ]  # fmt: skip
    assert run["0:5"].raw[0, 0] == complex(abs(X[0, 0]), -abs(X[0, 0]))
    np.testing.assert_allclose(run["0"].raw[:4].astype(np.float32), np.abs(X), rtol=1e-2)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_tensors_without_an_array_say_why() -> None:
    class Odd(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.to_sparse(), torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)

    with layertap.open(nn.Sequential(Odd())) as model:
        graph = model.trace(X)
        assert "sparse" in graph["0"].untappable
        with pytest.raises(Untappable, match="'0:1'.*quantized"):
            model.capture(X, taps="0:1")
        with pytest.raises(Untappable, match="sparse"):
            model.capture(X, taps="0")


@pytest.mark.slow
def test_nothing_is_kept_between_batches() -> None:
    net = nn.Sequential(nn.Linear(6, 1 << 14), nn.ReLU(inplace=True))
    with layertap.open(net) as model:
        read = reader(model, ["0", "1"])
        for _ in range(3):
            read(X)
        gc.collect()
        big = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.dim() == 2]
        assert not [tensor for tensor in big if tensor.shape == (4, 1 << 14)]


def test_float64_arrays_take_the_modules_type() -> None:
    with layertap.open(nn.Sequential(nn.Linear(6, 6).bfloat16())) as model:
        run = model.capture(X.astype(np.float64), taps="0 | kind:input")
        assert run["input"].raw.dtype.name == run["0"].raw.dtype.name == "bfloat16"
    with layertap.open(nn.Sequential(nn.Linear(6, 6).double())) as model:
        assert model.capture(X.astype(np.float64))["0"].raw.dtype == np.float64


def test_an_input_that_the_module_keeps_stays_as_it_was() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()
            self.last = nn.Linear(6, 6)
            self.kept: Any = None

        def forward(self, x: Any) -> Any:
            if self.kept is None:
                self.kept = x
            return self.last(self.same(x))

    net = Keeps()
    with layertap.open(net) as model:
        read = reader(model, ["same"])
        net.kept = None  # what the example left there
        first = read(X)["same"]
        others = [read(X + step)["same"] for step in (1, 2, 3)]
    np.testing.assert_array_equal(first, X)
    for step, value in enumerate(others, 1):
        np.testing.assert_array_equal(value, X + step)
    assert net.kept is None or np.array_equal(net.kept.numpy(), X)


class Repeats(nn.Module):
    """Calls one module several times, each time with another value, and itself from inside."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(6, 6)
        self.act = nn.ReLU(inplace=True)
        self.nested = Nested()

    def forward(self, x: Any) -> Any:
        for _ in range(3):
            x = self.act(self.step(x))
        return self.nested(x, 2)


NESTED = {"": 4, "@1": 2, "@2": 1}


class Nested(nn.Module):
    def forward(self, x: Any, depth: int) -> Any:
        return self(x + 1, depth - 1) * 2 if depth else x * 3


def test_every_call_of_a_module_that_is_called_again() -> None:
    net = Repeats()
    names = ["step", "step@1", "step@2", "act", "act@2", "nested", "nested@1", "nested@2"]
    with layertap.open(net) as model:
        read = reader(model, names)
        for scale in (1, 2, 3):
            values = read(X * scale)
            with torch.no_grad():
                x = torch.from_numpy(X * scale)
                expected = {}
                for call in ("", "@1", "@2"):
                    expected["step" + call] = net.step(x)
                    expected["act" + call] = x = expected["step" + call].relu()
            innermost = (x + 1 + 1) * 3
            expected |= {f"nested{call}": innermost * by for call, by in NESTED.items()}
            assert set(values) == set(names)
            for name, value in values.items():
                np.testing.assert_array_equal(value, expected[name].numpy())


def test_a_call_that_only_some_batches_make() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            y = self.step(x)
            return self.step(y) if float(x.sum()) > 0 else y

    net = Sometimes()
    with layertap.open(net) as model:
        read = reader(model, ["step", "step@1"], np.abs(X))
        for batch in (np.abs(X), -np.abs(X), np.abs(X)):
            values = read(batch)
            assert ("step@1" in values) == bool(batch.sum() > 0)
            with torch.no_grad():
                first = net.step(torch.from_numpy(batch))
            np.testing.assert_array_equal(values["step"], first.numpy())


def test_a_piece_of_a_larger_tensor_holds_no_more_than_itself() -> None:
    class Piece(nn.Module):
        def __init__(self, take: Callable[[Any], Any]) -> None:
            super().__init__()
            self.take = take

        def forward(self, x: Any) -> Any:
            return self.take(x.repeat(100, 1))

    takes: list[Callable[[Any], Any]] = [
        lambda x: x[:1],
        lambda x: x[0].expand(4, 6),
        lambda x: x[::7, 1:3],
    ]
    for take in takes:
        net = nn.Sequential(Piece(take), nn.Identity())
        with layertap.open(net) as model:
            read = reader(model, ["0"])
            for _ in range(3):
                value = read(X)["0"]
                owner = value if value.base is None else value.base
                assert value.flags.c_contiguous
                assert getattr(owner, "nbytes", value.nbytes) == value.nbytes
                value[...] = np.arange(value.size).reshape(value.shape)
                assert len(set(value.ravel().tolist())) == value.size


def test_hooks_on_one_module_do_not_keep_others_from_being_heard() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    with layertap.open(net) as model:
        read = reader(model, ["0", "1", "2"])
        for _ in range(2):
            read(X)
        handle = net[1].register_forward_hook(lambda module, args, output: output * 2)
        hooked = read(X)
        handle.remove()
        plain = read(X)
    np.testing.assert_array_equal(hooked["1"], plain["1"] * 2)
    np.testing.assert_array_equal(hooked["0"], plain["0"])
    assert not np.array_equal(hooked["2"], plain["2"])
    assert all("forward" not in module.__dict__ for module in net)


def test_a_value_that_somebody_keeps_is_not_shared_with_them() -> None:
    """Also where keeping it begins after the pass has learned that nobody does."""
    kept: list[Any] = []
    net = nn.Sequential(nn.Linear(6, 6), nn.Identity(), nn.Linear(6, 6))
    keeps: list[Callable[..., Any]] = [
        lambda module, args, output: kept.append(args[0]),
        lambda module, args, output: kept.append(args[0].view(-1)),
        lambda module, args, output: kept.append(args[0].detach()),
    ]
    with layertap.open(net) as model:
        read = reader(model, ["0", "2"])
        for _ in range(3):
            read(X)
        for keep in keeps:
            handle = net[1].register_forward_hook(lambda *given, keep=keep: keep(*given) and None)
            value = read(X)["0"]
            expected = value.copy()
            with torch.no_grad():
                kept[-1].zero_()
            np.testing.assert_array_equal(value, expected)
            handle.remove()


KEEPS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda y: y,
    "a view": lambda y: y[:2],
    "detached": lambda y: y.detach(),
    "data": lambda y: y.data,
    "an array": lambda y: y.numpy(),
    "an array of a view": lambda y: y.view(-1)[3:].numpy(),
    "its storage": lambda y: y.untyped_storage(),
}


@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS)
def test_a_value_that_the_module_keeps_is_not_shared_with_it(keep: Callable[[Any], Any]) -> None:
    kept: list[Any] = []

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            y = self.first(x)
            kept.append(keep(y))
            return self.last(y)

    with layertap.open(Keeps()) as model:
        read = reader(model, ["first", "last"])
        for _ in range(4):
            value = read(X)["first"]
            expected = value.copy()
            value[:] = -1
            theirs = kept[-1]
            if isinstance(theirs, torch.UntypedStorage):
                theirs = torch.empty(0).set_(theirs)
            assert np.isin(np.asarray(theirs), expected).all()


class Resizes(nn.Module):
    """Gives memory that it returned another size: that of ``first``, or its own of each call."""

    def __init__(self, memory: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        self.memory = [memory]

    def forward(self, x: Any) -> Any:
        y = self.first(x)
        z = torch.mul(self.last(y), 2, out=self.memory[0].resize_(x.shape))
        y.resize_(len(x) + 100, 6).zero_()
        return z


def test_memory_can_be_resized_all_the_same() -> None:
    """PyTorch refuses that for memory of which an array was made."""
    memory = torch.empty(0)
    net = nn.Sequential(Resizes(memory), nn.Identity())
    with layertap.open(net) as model:
        read = reader(model, ["0.first", "0.last", "0", "1"])
        for samples in (2, 2, 3, 3, 400):
            x = np.resize(X, (samples, 6))
            net[0].memory = [memory]
            values = read(x)
            with torch.no_grad():
                first = net[0].first(torch.from_numpy(x))
                last = net[0].last(first)
            expected = {"0.first": first, "0.last": last, "0": last * 2, "1": last * 2}
            for name, value in values.items():
                np.testing.assert_array_equal(value, expected[name].numpy())
    memory.resize_(10_000)


class Turns(nn.Module):
    """Writes into its input, and from the fourth call on over a value, for a reason that nobody
    who looks at the module can see."""

    calls: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.last = nn.Linear(6, 6)

    def forward(self, x: Any) -> Any:
        self.calls.append(1)
        y = self.first(x.add_(1))
        z = self.last(y)
        if len(self.calls) > 4:
            y.zero_()
        return z


def test_a_batch_that_is_run_again_gets_its_own_input_again() -> None:
    net = Turns()
    Turns.calls.clear()
    with layertap.open(net) as model:
        read = reader(model, ["first", "last"])
        for step in range(8):
            values = read(X + step)
            with torch.no_grad():
                first = net.first(torch.from_numpy(X + step).add_(1))
                expected = {"first": first.numpy(), "last": net.last(first).numpy()}
            for name, value in values.items():
                np.testing.assert_array_equal(value, expected[name])
