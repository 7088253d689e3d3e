"""The PyTorch runtime passes the conformance suite; random networks, in-place ones included."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from layertap.core.dtypes import Array  # noqa: E402
from layertap.testing.runtime import Case, RuntimeSuite  # noqa: E402

Note = Callable[[str, Any], None]

WIDTH = 6


def _ignore(name: str, value: Any) -> None:
    return None


class Kept(nn.Module):
    """Returns its own buffer, which the next call overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(16, WIDTH))
        self.calls = 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        self.kept[: len(x)].copy_(x * 2)
        return self.kept[: len(x)]


class Step(nn.Module):
    """One of the things that networks do to a tensor."""

    MAKERS: Mapping[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Linear(WIDTH, WIDTH),
        "relu": lambda: nn.ReLU(inplace=True),
        "tanh": nn.Tanh,
        "identity": nn.Identity,
        "dropout": lambda: nn.Dropout(0.5, inplace=True),
        "norm": lambda: nn.BatchNorm1d(WIDTH),
        "kept": Kept,
        "unflatten": lambda: nn.Sequential(nn.Unflatten(1, (2, WIDTH // 2)), nn.Flatten()),
    }


class Program(nn.Module):
    """Runs a list of instructions; each is (what happens around the call, which module)."""

    def __init__(self, kinds: Sequence[str], calls: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Step.MAKERS[kind]() for kind in kinds)
        self.instructions = [(how, index % len(kinds)) for how, index in calls]

    def forward(self, x: Any, note: Note = _ignore) -> Any:
        first = x = x * 1
        seen: dict[str, int] = {}
        for how, index in self.instructions:
            part, name = self.parts[index], f"parts.{index}"
            if isinstance(part, nn.Sequential):
                for i, inner in enumerate(part):
                    x = inner(x)
                    _note(note, seen, f"{name}.{i}", x)
            else:
                x = part(x)
            _note(note, seen, name, x)
            if how == "add":
                x += first
            elif how == "data":
                x.data.mul_(0.5)
            elif how == "view":
                x[:, 0].zero_()
        note("output", x)
        return x


def _note(note: Note, seen: dict[str, int], name: str, value: Any) -> None:
    call = seen.get(name, 0)
    seen[name] = call + 1
    note(f"{name}@{call}" if call else name, value)


class Container(Program):
    """A Program whose nested modules are called as one."""

    def forward(self, x: Any) -> Any:
        y = x * 1
        first = y
        for how, index in self.instructions:
            y = self.parts[index](y)
            if how == "add":
                y += first
            elif how == "data":
                y.data.mul_(0.5)
            elif how == "view":
                y[:, 0].zero_()
        return y


def oracle(net: Program, x: Array) -> dict[str, Array]:
    """Values step by step, each cloned when it appears, on a copy of the network."""
    twin = copy.deepcopy(net)
    values: dict[str, Array] = {}

    def note(name: str, value: Any) -> None:
        values[name] = value.clone().numpy()

    with torch.no_grad(), torch.random.fork_rng():
        Program.forward(twin, torch.from_numpy(x.copy()), note)
    return values


def fingerprint(net: nn.Module) -> object:
    """Everything about a module that reading it must not change."""
    return (
        {name: value.numpy().tobytes() for name, value in net.state_dict().items()},
        [(m.training, len(m._forward_hooks), "forward" in m.__dict__) for m in net.modules()],
        [p.grad for p in net.parameters()],
        torch.get_rng_state().numpy().tobytes(),
        torch.is_grad_enabled(),
    )


def make_case(kinds: Sequence[str], calls: Sequence[tuple[str, int]], *, train: bool) -> Case:
    torch.manual_seed(3)
    net = Container(kinds, calls).train(train)
    x = np.random.default_rng(0).standard_normal((5, WIDTH)).astype(np.float32)

    def outputs() -> Mapping[str, Array]:
        twin = copy.deepcopy(net)
        with torch.no_grad(), torch.random.fork_rng():
            return {"output": twin(torch.from_numpy(x.copy())).numpy()}

    return Case(net, {"x": x}, oracle(net, x), outputs, lambda: fingerprint(net))


class TestTorch(RuntimeSuite):
    runtime = "torch"
    frameworks = ("torch",)
    examples = 40
    isolation = """
import numpy as np, torch, layertap
with layertap.open(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())) as model:
    model.capture(np.zeros((2, 4), np.float32))
"""

    def make_case(self, *, train: bool = True) -> Case:
        kinds = ["linear", "relu", "norm", "kept", "dropout", "identity", "unflatten"]
        calls = [("", i) for i in range(7)]
        calls += [("add", 0), ("", 1), ("view", 2), ("data", 3), ("", 4), ("add", 6), ("", 3)]
        return make_case(kinds, calls, train=train)

    def make_steady_case(self) -> Case:
        return self.make_case(train=False)

    def random_cases(self) -> st.SearchStrategy[Case]:
        kinds = st.lists(st.sampled_from(sorted(Step.MAKERS)), min_size=1, max_size=5)
        how = st.sampled_from(["", "", "add", "data", "view"])
        calls = st.lists(st.tuples(how, st.integers(0, 9)), max_size=10)
        return st.builds(build, kinds, calls, st.booleans())

    def test_random_models_over_several_batches(self) -> None:
        """The first batch is read with copies, the later ones without: both must be right."""

        @settings(max_examples=self.examples)
        @given(self.random_cases(), st.integers(2, 6))
        def check(case: Case, rows: int) -> None:
            before = case.fingerprint()
            other = np.random.default_rng(rows).standard_normal((rows, WIDTH)).astype(np.float32)
            with self.open(case) as model:
                taps = [tap for tap in model.trace(case.feed) if tap.kind != "weight"]
                run_pass = model.session.prepare(taps)
                kept = []
                for x in (case.feed["x"], other, case.feed["x"], other):
                    found: dict[str, Array] = {}
                    run_pass(
                        {"x": x}, lambda tap, value, into=found: _put(into, tap.name, value[0])
                    )
                    assert case.fingerprint() == before
                    kept.append((oracle(case.source, x), found))
                for i, (expected, found) in enumerate(kept):
                    for name, value in expected.items():
                        np.testing.assert_array_equal(found[name], value, f"{name}, batch {i}")
                    for value in found.values():
                        if value.flags.writeable:  # otherwise it is the value of several taps
                            value[...] = 7  # nobody else's values may change with it

        check()


def _put(into: dict[str, Array], name: str, value: Array) -> None:
    into[name] = value


def build(kinds: Sequence[str], calls: Sequence[tuple[str, int]], train: bool) -> Case:
    """A case in which every module is called at least once."""
    return make_case(kinds, [*(("", i) for i in range(len(kinds))), *calls], train=train)
