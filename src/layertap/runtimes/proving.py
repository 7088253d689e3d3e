"""Which axis counts samples, by one further run of a changed batch, where following it could not
tell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layertap.core.axes import reordered
from layertap.core.dtypes import Array
from layertap.core.graph import Graph, TapPoint
from layertap.core.messages import brief
from layertap.runtimes.following import ANOTHER_ORDER, ONE_SAMPLE

NOT_PROVEN = "a further run of the samples in another order does not tell"
_NOT_THERE = "a further run of the samples in another order did not compute it"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The axis of a tap that counts samples, or None, and how that is known."""

    axis: int | None
    evidence: str


ONE = Judgement(0, ONE_SAMPLE)
"""Whatever a batch of one sample has computed belongs to that sample."""

Read = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Runs the model on one batch; the values by tap, less those that were not computed."""


def prove(
    taps: Sequence[TapPoint],
    arrays: Mapping[str, Array],
    read: Read,
    samples: int,
    counted: Collection[str],
) -> dict[str, Judgement]:
    """Judge ``taps`` from a run of ``arrays``, ``samples`` samples (2 or more) on axis 0 of those
    that are ``counted``, and one of these in another order. Where the size of an axis follows the
    number of samples the tap says so. Raises what ``read`` raises for the batch as it is."""
    before = read(arrays)
    order = shifted(samples)
    try:
        after = read({name: a[order] if name in counted else a for name, a in arrays.items()})
    except Exception as error:
        failed = Judgement(None, f"a further run of a changed batch failed: {brief(error)}")
        return {tap.name: failed for tap in taps}
    return {tap.name: _judged(tap, before, after, samples) for tap in taps}


def shifted(samples: int) -> Array:
    """The order of the further run: the first sample twice, then all others but the last.

    No rearrangement of a batch gives the same before and after this but to leave all as they are
    (one that turns the batch around, or moves it on, would for a permutation of its own kind), and
    as many samples take no model longer than the batch itself.
    """
    return np.maximum(np.arange(samples) - 1, 0)


def _judged(
    tap: TapPoint,
    values: Mapping[str, Array],
    others: Mapping[str, Array],
    samples: int,
) -> Judgement:
    before, after = values.get(tap.name), others.get(tap.name)
    if before is None or after is None:
        return Judgement(None, _NOT_THERE)
    axes = [axis for axis in range(before.ndim) if _is_shifted(before, after, axis, samples)]
    if tap.per == "sample" and tap.shape is not None and tap.shape[tap.batch_axis] is None:
        # The only axis whose size follows the number of samples.
        axes = [axis for axis in axes if axis == tap.batch_axis]
    elif np.array_equal(before, after):
        axes = []  # samples that are all alike do not tell which axis is theirs
    return Judgement(axes[0], ANOTHER_ORDER) if len(axes) == 1 else Judgement(None, NOT_PROVEN)


def _is_shifted(before: Array, after: Array, axis: int, samples: int) -> bool:
    if before.shape[axis] != samples or before.shape != after.shape:
        return False
    used = before.take(range(samples - 1), axis)
    return reordered(used, after, shifted(samples)) == axis


def with_axes(graph: Graph, found: Mapping[str, Judgement]) -> Graph:
    """``graph`` with the axes that were found, and one row per batch where there is none."""
    taps = [_with_axis(tap, found[tap.name]) if tap.name in found else tap for tap in graph]
    return Graph(taps, complete=graph.complete)


def _with_axis(tap: TapPoint, known: Judgement) -> TapPoint:
    if known.axis is None:
        return replace(tap, per="batch", batch_axis=0)
    shape = tap.shape
    if shape is not None and known.axis < len(shape):
        shape = (*shape[: known.axis], None, *shape[known.axis + 1 :])
    return replace(tap, per="sample", batch_axis=known.axis, shape=shape)
