"""What a board has to send of the test board's model, by tap name."""

from __future__ import annotations

from collections.abc import Mapping

import boardmodel
import numpy as np

from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.graph import Graph


def expected(
    graph: Graph, feed: Mapping[str, Array], memory: Array | None = None
) -> tuple[dict[str, Array], Array]:
    """The value of each tap that is no weight, iterations stacked, and the state afterwards."""
    values, state = boardmodel.values(feed, memory)
    found = {}
    for tap in graph:
        if tap.kind == "weight":
            continue
        each = values[tap.name.removeprefix(f"s{tap.subgraph}/")]
        assert tap.shape is not None
        empty = np.empty((0, *(size or 0 for size in tap.shape[1:])), numpy_dtype(tap.dtype))
        stacked = np.stack(each) if each else empty
        found[tap.name] = stacked if tap.subgraph else each[0]
    return found, state


def assert_same(actual: Array, wanted: Array, what: str) -> None:
    """The same bits."""
    actual = np.asarray(actual)
    assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape), what
    assert np.ascontiguousarray(actual).tobytes() == np.ascontiguousarray(wanted).tobytes(), what


__all__ = ["assert_same", "expected"]
