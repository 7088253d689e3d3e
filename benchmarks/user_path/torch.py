"""PyTorch: a run of twenty batches, one capture, the first one, ``attach`` in a training loop; by
hand is hooks that clone. One thread; ``torch.no_grad`` but for the training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from benchmarks.networks import MLP, NETWORKS, RESNET_32, Network
from benchmarks.user_path.goals import (
    DISK,
    HAND,
    MEMORY,
    RAW,
    TO_DISK,
    Call,
    Goal,
    Row,
    compared,
    compared_afresh,
    disk,
    write_raw,
)
from torch import nn

import layertap
from layertap.api import Model

BATCHES = {network: 5 if network == RESNET_32 else 20 for network in NETWORKS}
"""In a run; those of the largest network take a hundred megabytes each."""
STEPS = 5
BARE = "no taps"
RUN = {MEMORY: Goal({HAND: 1.05}), **TO_DISK}
CAPTURE = {"layertap": Goal({HAND: 1.15}, 1e-3)}
FIRST = {"layertap": Goal({"two forward passes": 1}, 0.15)}
ATTACH = {"layertap.attach": Goal({HAND: 1.05})}
TRAINED = (MLP, RESNET_32)


@dataclass(frozen=True)
class Subject:
    """A network to be read, opened in layertap too."""

    network: Network
    net: nn.Module
    batches: Sequence[torch.Tensor]
    model: Model

    @classmethod
    def of(cls, network: Network) -> Subject:
        net, x = network.prepared()
        batches = [torch.randn_like(x) for _ in range(BATCHES[network])]
        return cls(network, net, batches, layertap.open(net))

    def bare(self, batches: int) -> None:
        with torch.no_grad():
            for x in self.batches[:batches]:
                self.net(x)

    def by_hand(self, batches: int) -> Mapping[str, list[torch.Tensor]]:
        """Every module's outputs, cloned, in a list for each."""
        kept: dict[str, list[torch.Tensor]] = {name: [] for name in called(self.net)}
        handles = hooked(self.net, lambda name, value: kept[name].append(value))
        try:
            self.bare(batches)
        finally:
            for handle in handles:
                handle.remove()
        return kept

    def capture(self, batches: int, **options: Any) -> layertap.Run:
        axis = self.network.axis
        axes = {self.model.session.inputs[0].name: axis} if axis else None
        return self.model.capture(iter(self.batches[:batches]), batch_axis=axes, **options)

    def capture_and_read(self) -> list[Any]:
        return [capture.raw for capture in self.capture(1).values()]


def called(net: nn.Module) -> list[str]:
    return [name for name, _ in net.named_modules() if name]


def hooked(net: nn.Module, keep: Callable[[str, torch.Tensor], None]) -> list[Any]:
    """Hooks that hand a clone of each module's output to ``keep``."""

    def hook(name: str) -> Callable[..., None]:
        def clone(module: nn.Module, args: object, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            keep(name, value.detach().clone())

        return clone

    modules = dict(net.named_modules())
    return [modules[name].register_forward_hook(hook(name)) for name in called(net)]


def rows() -> list[Row]:
    torch.set_num_threads(1)
    return [row for network in NETWORKS for row in _network(network)]


def _network(network: Network) -> Iterator[Row]:
    subject = Subject.of(network)
    yield from _runs(subject)
    contenders = {
        HAND: partial(subject.by_hand, 1),
        BARE: partial(subject.bare, 1),
        "layertap": partial(subject.capture, 1),
        "layertap, and all values read": subject.capture_and_read,
    }
    work = f"{network.name}: one capture of one batch"
    yield from compared(work, contenders, CAPTURE, budget=4, repeat=3)
    work = f"{network.name}: first capture, torch imported"
    program = ["benchmarks.user_path.first", "torch", str(NETWORKS.index(network))]
    yield from compared_afresh(work, program, FIRST)
    if network in TRAINED:
        yield from _training(network)


def _runs(subject: Subject) -> list[Row]:
    """All batches, in memory and on disk."""
    batches = len(subject.batches)
    values = [np.ascontiguousarray(capture.raw) for capture in subject.capture(1).values()]
    with disk() as (folder, prepare):
        contenders: dict[str, Call] = {
            HAND: partial(subject.by_hand, batches),
            BARE: partial(subject.bare, batches),
            MEMORY: partial(subject.capture, batches),
            RAW: partial(write_raw, folder / "raw", values, batches),
            DISK: partial(subject.capture, batches, to=folder / "run.zarr"),
        }
        work = f"{subject.network.name}: a run of {batches} batches"
        return compared(work, contenders, RUN, budget=12, prepare=prepare)


def _training(network: Network) -> list[Row]:
    net, x = network.prepared()
    train = partial(_train, net.train(), x)
    contenders: dict[str, Call] = {
        HAND: partial(train, _attached_by_hand),
        BARE: partial(train, contextlib.nullcontext),
        "layertap.attach": partial(train, layertap.attach),
    }
    return compared(f"{network.name}: {STEPS} steps of training", contenders, ATTACH, budget=10)


class _attached_by_hand:  # noqa: N801  # stands where layertap.attach does
    """The values of the latest call, cloned by hooks."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.kept: dict[str, torch.Tensor] = {}

    def __enter__(self) -> Mapping[str, torch.Tensor]:
        self.handles = hooked(self.net, self.kept.__setitem__)
        return self.kept

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def _train(net: nn.Module, x: torch.Tensor, attach: Callable[[nn.Module], Any]) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    with attach(net):
        for _ in range(STEPS):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
