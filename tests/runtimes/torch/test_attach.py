"""Reading a module in its user's own loop."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest

import layertap
from layertap.errors import NoSuchTap, RunError, SourceError, UnknownSource

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

X = torch.linspace(-1, 1, 24).reshape(4, 6)


def net(train: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True))
    return nn.Sequential(block, nn.BatchNorm1d(6), nn.Linear(6, 2)).train(train)


def test_training_goes_on_as_without() -> None:
    bare, watched = net(), net()
    optimizers = [torch.optim.SGD(module.parameters(), 0.1) for module in (bare, watched)]
    with layertap.attach(watched, taps="*") as taps:
        for _ in range(3):
            for module, optimizer in zip((bare, watched), optimizers, strict=True):
                optimizer.zero_grad()
                module(X).square().sum().backward()
                optimizer.step()
        assert set(taps) == {"0.0", "0.1", "0", "1", "2", "output"}
        assert isinstance(taps["0.0"], np.ndarray)
        assert taps["0.0"].min() < 0 <= taps["0.1"].min()
    for a, b in zip(bare.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in watched.modules())


def test_values_are_those_of_the_latest_call() -> None:
    module = net(train=False)
    with layertap.attach(module, "0.0") as taps:
        with pytest.raises(RunError, match="no call"):
            taps["0.0"]
        assert "0.0" not in taps
        for x in (X, X * 2):
            module(x)
            expected = nn.functional.linear(x, module[0][0].weight, module[0][0].bias)
            np.testing.assert_array_equal(taps["0.0"], expected.detach().numpy())
        kept = taps["0.0"].copy()
        with pytest.raises(RunError, match="not selected"):
            taps["1"]
        with pytest.raises(NoSuchTap):
            taps["nothing like it"]
    module(X)
    np.testing.assert_array_equal(taps["0.0"], kept)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(6, 3)
        self.head = nn.Linear(3, 6)

    def forward(self, x: Any, steps: int) -> Any:
        state = None
        for _ in range(steps):
            x, state = self.cell(x, state)
            x = self.head(x)
        return {"x": x}


def test_calls_arguments_and_nested_outputs() -> None:
    module = Recurrent()
    wanted = ["cell:1.0", "head@2", "cell@1:args.1.0", "output:x", "x", "head.weight"]
    with layertap.attach(module, wanted) as taps:
        module(X, 3)
        assert sorted(taps) == sorted(wanted)
        np.testing.assert_array_equal(taps["head@2"], taps["output:x"])
        np.testing.assert_array_equal(taps["x"], X.numpy())
        np.testing.assert_array_equal(taps["cell:1.0"], taps["cell@1:args.1.0"])
        module(X, 1)
        assert "head@2" not in taps
        assert "cell:1.0" in taps


def test_parts_called_directly_keep_the_values_of_the_others() -> None:
    module = net(train=False)
    with layertap.attach(module, "0.0 | 2") as taps:
        y = module[0](X)
        for _ in range(2):
            module[2](y)
        assert set(taps) == {"0.0", "2"}


@pytest.mark.parametrize("selector", ["nope", "op:Conv2d", ["0.0", "nope"], "nope:1", "re:^9"])
def test_a_selector_that_cannot_match(selector: Any) -> None:
    module = net()
    with pytest.raises(NoSuchTap), layertap.attach(module, selector):
        pass
    assert all(not m._forward_hooks for m in module.modules())


def test_further_names_of_a_module() -> None:
    module = net(train=False)
    module.alias = module[0]
    with layertap.attach(module, "alias.1") as taps:
        module[0](X)
        np.testing.assert_array_equal(taps["alias.1"], taps["0.1"])


class Fails(nn.Module):
    def forward(self, x: Any) -> Any:
        raise ArithmeticError


def test_a_call_that_fails_does_not_disturb_the_next() -> None:
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bad, self.good = Fails(), nn.Identity()

        def forward(self, x: Any) -> Any:
            try:
                return self.bad(x)
            except ArithmeticError:
                return self.good(x)

    module = Tries()
    with layertap.attach(module) as taps:
        for _ in range(2):
            module(X)
            assert set(taps) == {"good", "output"}
            with pytest.raises(ArithmeticError):
                module.bad(X)
    assert not module.bad._forward_hooks
    with pytest.raises(KeyboardInterrupt), layertap.attach(module):
        raise KeyboardInterrupt
    assert not module.bad._forward_hooks


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_modules_give_values(backend: str) -> None:
    module = net(train=False)
    compiled = torch.compile(module, backend=backend)
    with torch.no_grad():
        expected = compiled(X).numpy()
        for target in (compiled, module):
            with layertap.attach(target, "0.0 | output") as taps:
                compiled(X)
                assert set(taps) == {"0.0", "output"}
                np.testing.assert_allclose(taps["output"], expected, rtol=1e-6)


def test_compiling_inside_gives_values_or_an_error() -> None:
    module = net(train=False)
    with layertap.attach(module, "0.0") as taps:
        compiled = torch.compile(module, backend="eager", fullgraph=False)
        with torch.no_grad():
            compiled(X)
        try:
            value = taps["0.0"]
        except RunError:
            return
        expected = nn.functional.linear(X, module[0][0].weight, module[0][0].bias)
        np.testing.assert_array_equal(value, expected.detach().numpy())


def test_an_encoder_keeps_its_fused_kernel() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        bare = layer(x)
        with layertap.attach(nn.Sequential(layer), "0") as taps:
            assert torch.equal(layer(x), bare)
            np.testing.assert_array_equal(taps["0"], bare.numpy())
            twin = copy.deepcopy(layer)
            twin.linear1.weight.zero_()
            assert not torch.equal(twin(x), bare)
    assert "forward" not in layer.__dict__


def test_copies_and_pickles_made_meanwhile_are_on_their_own() -> None:
    module = net(train=False)
    with layertap.attach(module) as taps:
        twin = copy.deepcopy(module)
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        twin(X)
        loaded(X)
        assert not list(taps)
    assert torch.equal(loaded(X), module(X))


def test_what_is_not_a_module() -> None:
    with pytest.raises(UnknownSource):
        layertap.attach(object())
    from layertap.runtimes.torch import attach

    with pytest.raises(SourceError):
        attach("net")
