"""Other tools of PyTorch, each doing the whole of its own job for one batch, beside hooks that
clone and beside layertap. For orientation."""

from __future__ import annotations

from functools import partial

import torch
from benchmarks.networks import MLP, RESNET_1
from benchmarks.torch_overhead import PEERS, peer
from benchmarks.user_path.goals import HAND, Row, compared
from benchmarks.user_path.torch import Subject


def rows() -> list[Row]:
    """torchlens comes last: it puts wrappers in the place of PyTorch's functions, for good."""
    torch.set_num_threads(1)
    found = []
    for name in PEERS:
        for network in (MLP, RESNET_1):
            subject = Subject.of(network)
            work = peer(name, subject.net, subject.batches[0])
            if work is None:
                continue
            contenders = {
                HAND: partial(subject.by_hand, 1),
                "layertap": partial(subject.capture, 1),
                name: work,
            }
            title = f"{network.name}: one capture of one batch, {name}"
            found += compared(title, contenders, {}, budget=2)
    return found
