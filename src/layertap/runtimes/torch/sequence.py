"""Networks that are an ``nn.Sequential``, called part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from layertap.runtimes.torch.catalog import Catalog
from layertap.runtimes.torch.tracing import Key, Traced

Keep = Callable[[int, Any], None]
"""Gets a tap's number, and what the module it belongs to returned."""


def by_parts(
    network: nn.Sequential,
    count: int,
    numbers: Mapping[nn.Module, int],
    copy: Sequence[bool],
    records: dict[int, tuple[torch.Tensor, int]],
    keep: Keep,
) -> Callable[[Any], Any]:
    """What a call of ``network`` does, as far as ``count`` of its parts. It ends there by itself,
    where the whole network would have to be left with an exception. And what the parts return is
    at hand, without listening to them: ``numbers`` are those of the taps to take it for.

    A tensor that needs no copy goes into ``records`` with its version, everything else to ``keep``.
    """
    modules, plain = network._modules, torch.Tensor
    taps = [numbers.get(part) for part in list(network)[:count]]

    def forward(value: Any) -> Any:
        for part, number in zip(modules.values(), taps, strict=False):
            value = part(value)
            if number is not None:
                if copy[number] or type(value) is not plain or value.is_inference():
                    keep(number, value)
                else:
                    records[number] = value, value._version
        return value

    return forward


def parts_until(
    network: nn.Sequential, catalog: Catalog, keys: Sequence[Key], traced: Traced
) -> int:
    """How many parts of ``network``, the root, it takes to the last of the values at ``keys``, if
    that is the output of a part; otherwise 0."""
    progress, end = traced.progress, len(traced.entered)
    last = max((progress.get(key, end) for key in keys), default=end)
    late = [key for key in keys if key.slot in traced.once and progress.get(key) == last]
    ends = {catalog.slots[key.slot].module for key in late if not key.is_argument}
    return next((count for count, part in enumerate(network, 1) if part in ends), 0)
