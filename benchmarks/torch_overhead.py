"""What reading values costs in PyTorch: time of a forward pass with taps, as a ratio to without.

``python -m benchmarks.torch_overhead [WORK ...]`` prints a table. One thread (``torch`` would
otherwise compete with whatever else the machine does), ``torch.no_grad``, medians of the quietest
of interleaved rounds, the fastest of several passes in each. All contenders get the same tensor.
The C library keeps memory that was freed. layertap's values are right under the in-place operations
of the ResNets; so are those of hooks that clone, of captum and of torchlens, but nnsight's are not.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.timing import hold_memory, quiet_median, ratios, rounds_of
from torch import nn

import layertap
from layertap.runtimes.torch import open as open_torch


class Basic(nn.Module):
    """The residual block of ResNet-18 (He et al. 2015), with in-place ReLU and addition."""

    def __init__(self, wide_in: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide_in, wide, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.downsample: nn.Module | None = None
        if stride != 1 or wide_in != wide:
            conv = nn.Conv2d(wide_in, wide, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(wide))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        result: torch.Tensor = self.relu(out)
        return result


def resnet18() -> nn.Sequential:
    """ResNet-18 for 1000 classes."""
    stem = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    stages = [
        nn.Sequential(Basic(wide_in, wide, stride), Basic(wide, wide, 1))
        for wide_in, wide, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*stem, *stages, *head)


def mlp() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(256, 256) for _ in range(48)))


def transformer() -> nn.TransformerEncoder:
    """Twelve encoder layers whose modules are all called: sequence first, so that PyTorch's fused
    kernel does not replace them."""
    layer = nn.TransformerEncoderLayer(256, 8, 1024)
    return nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)


@dataclass(frozen=True)
class Work:
    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    quarter: int
    """How many of the network's parts are a quarter of its depth."""
    bar: float
    repeat: int
    """Passes in a row, of which the fastest counts."""
    rounds: int


WORKS = (
    Work("MLP 48x256, batch 32", mlp, (32, 256), 12, 1.20, 8, 50),
    Work("transformer 12x256, sequence 128", transformer, (128, 1, 256), 3, 1.10, 2, 16),
    Work("ResNet-18 64x64, batch 1", resnet18, (1, 3, 64, 64), 5, 1.06, 5, 40),
    Work("ResNet-18 64x64, batch 32", resnet18, (32, 3, 64, 64), 5, 1.10, 2, 6),
)

PEER_ROUNDS = 2
"""Some peers take seconds for one pass, and theirs are figures for orientation."""

FOUR_BAR = 1.02
PREFIX_BAR = 1.02


def _names(net: nn.Module, x: torch.Tensor) -> list[str]:
    """The modules that a forward pass calls, by their first call's tap name."""
    session = open_torch(net)
    feed = {session.inputs[0].name: x}
    return [tap.name for tap in session.trace(feed) if tap.kind == "activation" and tap.shape]


def tapped(net: nn.Module, x: torch.Tensor, names: Sequence[str]) -> Callable[[], object]:
    """A forward pass that reads ``names``, as a run in memory would."""
    session = open_torch(net)
    feed = {session.inputs[0].name: x}
    session.trace(feed)
    run = session.prepare([tap for tap in session.graph if tap.name in set(names)])

    def work() -> dict[str, Any]:
        kept: dict[str, Any] = {}
        run(feed, lambda tap, value: kept.__setitem__(tap.name, value))
        return kept

    return work


def hooks(
    net: nn.Module, x: torch.Tensor, names: Sequence[str], *, clone: bool
) -> Callable[[], object]:
    """What people write by hand: a forward hook per module that clones the output, or keeps it as
    it is, which costs least and is wrong where something writes into it later."""
    modules = dict(net.named_modules())

    def work() -> dict[str, Any]:
        kept: dict[str, Any] = {}

        def hook(name: str) -> Callable[..., None]:
            def keep(module: nn.Module, args: object, output: Any) -> None:
                value = output[0] if isinstance(output, tuple) else output
                kept[name] = value.clone() if clone else value

            return keep

        handles = [modules[name].register_forward_hook(hook(name)) for name in names]
        try:
            with torch.no_grad():
                net(x)
        finally:
            for handle in handles:
                handle.remove()
        return kept

    return work


class Enough(BaseException):
    """Ends a pass, as whoever stops a module from outside must."""


def raising(net: nn.Module, x: torch.Tensor, module: nn.Module) -> Callable[[], object]:
    """Stopping by hand: no copy of the input, no capture, nothing checked. What it costs beyond
    the prefix is the price of the exception, below which nobody gets."""

    def stop(*_: object) -> None:
        raise Enough

    def work() -> None:
        handle = module.register_forward_hook(stop)
        try:
            with torch.no_grad():
                net(x)
        except Enough:
            pass
        finally:
            handle.remove()

    return work


def captum(net: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    from captum.attr import LayerActivation

    called = set(_names(net, x))
    layers = [
        module
        for name, module in net.named_modules()
        if name in called and not isinstance(module, nn.MultiheadAttention)  # returns None, too
    ]
    reader = LayerActivation(net, layers)

    def work() -> object:
        with torch.no_grad():
            return reader.attribute(x)

    return work


def nnsight(net: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    from nnsight import NNsight

    wrapped = NNsight(net)
    # In the order of completion, as it demands; it reads the first call of a module.
    names = [name for name in _names(net, x) if not set("@:") & set(name)]

    def work() -> object:
        kept = []
        with torch.no_grad(), wrapped.trace(x):
            for name in names:
                kept.append(wrapped.get(name).output.save())
        return kept

    return work


def torchlens(net: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    import torchlens as tl

    def work() -> object:
        with torch.no_grad():
            return tl.trace(net, x)

    return work


PEERS = {"captum": captum, "nnsight": nnsight, "torchlens": torchlens}
"""They are measured after everything else, each beside a bare pass of its own, since what they do
to PyTorch stays in the process: the last puts wrappers in the place of PyTorch's functions."""


def _bare(net: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    def work() -> object:
        with torch.no_grad():
            return net(x)

    return work


def _own(net: nn.Module, x: torch.Tensor) -> dict[str, Callable[[], object]]:
    names = _names(net, x)
    four = [names[len(names) * i // 4 - 1] for i in range(1, 5)]
    return {
        "bare": _bare(net, x),
        "layertap, all modules": tapped(net, x, names),
        "layertap, four taps": tapped(net, x, four),
        "hooks with clone": hooks(net, x, [n for n, _ in net.named_modules() if n], clone=True),
        "four hooks without clone": hooks(net, x, four, clone=False),
        "the same pass again": _bare(net, x),
    }


def _peer(peer: str, net: nn.Module, x: torch.Tensor) -> dict[str, Callable[[], object]]:
    """A peer beside the bare pass, if it is installed and can do the work."""
    if importlib.util.find_spec(peer) is None:
        print(f"{peer} is not installed: left out", file=sys.stderr)
        return {}
    try:
        work = PEERS[peer](net, x)
        work()
    except Exception as error:  # whatever a peer raises, the others are measured
        print(f"{peer} fails: left out ({type(error).__name__}: {error})", file=sys.stderr)
        return {}
    return {"bare": _bare(net, x), peer: work}


def _cut(net: nn.Module, parts: int) -> nn.Module:
    """The network that ends after the first ``parts`` of ``net``, with the same modules."""
    if isinstance(net, nn.Sequential):
        return net[:parts]
    cut = copy.copy(net)
    cut._modules = {**net._modules, "layers": net.layers[:parts]}
    return cut


def _prefix(work: Work, net: nn.Module, x: torch.Tensor) -> dict[str, Callable[[], object]]:
    """The first quarter as a network of its own, and the whole network stopped after it."""
    cut = _cut(net, work.quarter)
    last = list(getattr(cut, "layers", cut).children())[-1]
    name = next(n for n, module in net.named_modules() if module is last)
    return {
        "prefix": _bare(cut, x),
        "layertap, stopped at a quarter": tapped(net, x, [name]),
        "a hook that raises at a quarter": raising(net, x, last),
        "the same quarter again": _bare(cut, x),
    }


def _prepared(work: Work) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return work.make().eval(), torch.randn(work.shape)


def _timed(
    work: Work, group: Mapping[str, Callable[[], object]], rounds: int, repeat: int
) -> Iterator[dict[str, Any]]:
    """One row for each contender of ``group`` but the first, which the ratios are to."""
    bars = {"layertap, all modules": work.bar, "layertap, four taps": FOUR_BAR}
    bars["layertap, stopped at a quarter"] = PREFIX_BAR
    seconds = rounds_of(group, rounds, repeat=repeat)
    for name, found in list(ratios(seconds).items())[1:]:
        row = {"work": work.name, "contender": name, "bar": bars.get(name)}
        yield {**row, "ratio": quiet_median(found), "rounds": found}


def _own_rows(work: Work) -> Iterator[dict[str, Any]]:
    net, x = _prepared(work)
    yield from _timed(work, _own(net, x), work.rounds, work.repeat)
    # A quarter of the network is run four times as often, which takes as long.
    yield from _timed(work, _prefix(work, net, x), work.rounds, 4 * work.repeat)


def _peer_rows(peer: str, work: Work) -> Iterator[dict[str, Any]]:
    group = _peer(peer, *_prepared(work))
    if group:
        yield from _timed(work, group, PEER_ROUNDS, work.repeat)


def rows(works: Sequence[Work] = WORKS) -> list[dict[str, Any]]:
    """One row per work and contender: ``work``, ``contender``, ``ratio`` to the bare forward pass
    (or, for the stopped pass, to the prefix alone), ``bar``, None for peers, and ``rounds``, of
    which ``ratio`` was made. The same pass once more shows what the figures are good for."""
    hold_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [row for work in works for row in _own_rows(work)]
        found += [row for peer in PEERS for work in works for row in _peer_rows(peer, work)]
    finally:
        torch.set_num_threads(threads)
    order = [work.name for work in works]
    return sorted(found, key=lambda row: order.index(row["work"]))


def main(arguments: Sequence[str]) -> None:
    works = [w for w in WORKS if not arguments or any(a in w.name for a in arguments)]
    print(f"torch {torch.__version__}, layertap {layertap.__version__}, 1 thread")
    for row in rows(works):
        bar = "" if row["bar"] is None else f"bar {row['bar']:.2f}"
        over = " MISSED" if row["bar"] is not None and row["ratio"] > row["bar"] else ""
        print(f"{row['work']:34} {row['contender']:32} {row['ratio']:7.3f}  {bar}{over}")


if __name__ == "__main__":
    main(sys.argv[1:])
