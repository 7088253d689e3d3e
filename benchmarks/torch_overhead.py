"""What reading values costs in PyTorch: time of a forward pass with taps, as a ratio to without.

For orientation: it is the inner pass of a run, prepared once; what people call is measured in
:mod:`benchmarks.user_path`. One thread (``torch`` would otherwise compete with whatever else the
machine does), ``torch.no_grad``, medians of the quietest of interleaved rounds, the fastest of
several passes in each. All contenders get the same tensor.
The C library keeps memory that was freed. layertap's values are right under the in-place operations
of the ResNets; so are those of hooks that clone, of captum and of torchlens, but nnsight's are not.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.networks import MLP, RESNET_1, RESNET_32, TRANSFORMER, Network
from benchmarks.timing import hold_memory, quiet_median, ratios, rounds_of
from torch import nn

from layertap.runtimes.torch import open as open_torch


@dataclass(frozen=True)
class Work:
    network: Network
    quarter: int | None
    """How many of the network's parts are a quarter of its depth; None where it runs to its end."""
    repeat: int
    """Passes in a row, of which the fastest counts."""
    rounds: int

    @property
    def name(self) -> str:
        return self.network.name


WORKS = (
    Work(MLP, 12, 8, 24),
    Work(TRANSFORMER, None, 2, 8),
    Work(RESNET_1, 5, 5, 16),
    Work(RESNET_32, 5, 2, 4),
)

PEER_ROUNDS = 1
"""Some peers take seconds for one pass."""


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


def peer(name: str, net: nn.Module, x: torch.Tensor) -> Callable[[], object] | None:
    """One pass of another tool; None where it is not installed or cannot do the work."""
    if importlib.util.find_spec(name) is None:
        print(f"{name} is not installed: left out", file=sys.stderr)
        return None
    try:
        work = PEERS[name](net, x)
        work()
    except Exception as error:  # whatever it raises, the others are measured
        print(f"{name} fails: left out ({type(error).__name__}: {error})", file=sys.stderr)
        return None
    return work


def _prefix(parts: int, net: nn.Module, x: torch.Tensor) -> dict[str, Callable[[], object]]:
    """The first parts as a network of their own, and the whole network left after them."""
    assert isinstance(net, nn.Sequential)
    cut = net[:parts]
    name = next(n for n, module in net.named_modules() if module is cut[-1])
    return {
        "prefix": _bare(cut, x),
        "layertap, stopped at a quarter": tapped(net, x, [name]),
        "the same quarter again": _bare(cut, x),
    }


def _timed(
    work: Work, group: Mapping[str, Callable[[], object]], rounds: int, repeat: int
) -> Iterator[dict[str, Any]]:
    """One row for each contender of ``group`` but the first, which the ratios are to."""
    seconds = rounds_of(group, rounds, repeat=repeat)
    for name, found in list(ratios(seconds).items())[1:]:
        row = {"work": work.name, "contender": name, "bar": None}
        yield {**row, "ratio": quiet_median(found), "rounds": found}


def _own_rows(work: Work) -> Iterator[dict[str, Any]]:
    net, x = work.network.prepared()
    yield from _timed(work, _own(net, x), work.rounds, work.repeat)
    if work.quarter is not None:
        # A quarter of the network is run four times as often, which takes as long.
        prefix = _prefix(work.quarter, net, x)
        yield from _timed(work, prefix, work.rounds, 4 * work.repeat)


def _peer_rows(name: str, work: Work) -> Iterator[dict[str, Any]]:
    """Another tool beside a bare pass of its own."""
    net, x = work.network.prepared()
    other = peer(name, net, x)
    if other is not None:
        yield from _timed(work, {"bare": _bare(net, x), name: other}, PEER_ROUNDS, 1)


def rows(works: Sequence[Work] = WORKS) -> list[dict[str, Any]]:
    """One row per work and contender: ``work``, ``contender``, ``ratio`` to the bare forward pass
    (or, for the stopped pass, to the prefix alone), ``bar``, which is None, and ``rounds``, of
    which ``ratio`` was made. The same pass once more shows what the figures are good for."""
    hold_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [row for work in works for row in _own_rows(work)]
        found += [row for name in PEERS for work in works for row in _peer_rows(name, work)]
    finally:
        torch.set_num_threads(threads)
    order = [work.name for work in works]
    return sorted(found, key=lambda row: order.index(row["work"]))
