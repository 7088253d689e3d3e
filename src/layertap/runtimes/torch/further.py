"""One further run of a changed batch, where only that can tell which axis counts samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from layertap.core.axes import Evidence, changed_order, reordered
from layertap.core.dtypes import Array
from layertap.core.feeds import Batch, Feed
from layertap.errors import LayertapError
from layertap.runtimes.torch.arrays import to_array
from layertap.runtimes.torch.internals import tree_map
from layertap.runtimes.torch.passes import Network, TapPass
from layertap.runtimes.torch.tracing import Traced

log = logging.getLogger(__name__)

_WAYS: tuple[tuple[bool, Evidence], ...] = (
    (True, "a further run, of another size"),
    (False, "a further run, in another order"),
)
"""The samples in another order, the last one twice if the network takes batches of another size."""


def settled(
    network: Network, traced: Traced, doubtful: Sequence[str], feed: Feed, samples: int
) -> Traced:
    """``traced``, which holds what ``feed`` gave, knowing of ``doubtful`` taps which axis counts
    samples, if any does."""
    names = [name for name in doubtful if traced.keys[name] in traced.values]
    keys = [traced.keys[name] for name in names]
    again = TapPass(network, [traced.graph[name] for name in names], keys, traced)
    for longer, how in _WAYS:
        order = changed_order(samples, longer=longer)
        try:
            values = again.read(changed(feed, samples, order))
        except LayertapError as error:
            log.debug("the network takes no such batch: %s", error)
            continue
        found = {
            name: reordered(to_array(traced.values[key]), to_array(values[key]), order, samples)
            if key in values
            else None
            for name, key in zip(names, keys, strict=True)
        }
        return traced.settled(found, how)
    return traced


def changed(feed: Feed, samples: int, order: Array) -> Feed:
    """The feed of the samples ``order`` of ``feed``."""
    axes = feed.axes if isinstance(feed, Batch) else {}

    def taken(leaf: Any, axis: int | None) -> Any:
        is_array = isinstance(leaf, np.ndarray | torch.Tensor)
        if axis is None or not is_array or leaf.ndim <= axis or leaf.shape[axis] != samples:
            return leaf
        return leaf[(*[slice(None)] * (axis % leaf.ndim), order)]

    return Batch(
        {
            name: tree_map(partial(taken, axis=axes.get(name, 0)), value)
            for name, value in feed.items()
        },
        axes,
    )
