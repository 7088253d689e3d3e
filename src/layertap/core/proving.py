"""Which axis counts samples, by one further run of a changed batch, where following it could not
tell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from layertap.core.axes import changed_order, reordered
from layertap.core.dtypes import Array
from layertap.core.following import ANOTHER_ORDER, ONE_SAMPLE
from layertap.core.graph import Graph, TapPoint
from layertap.core.messages import brief

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
    order = changed_order(samples, longer=False)
    try:
        after = read({name: a[order] if name in counted else a for name, a in arrays.items()})
    except Exception as error:
        failed = Judgement(None, f"a further run of a changed batch failed: {brief(error)}")
        return {tap.name: failed for tap in taps}
    return {
        tap.name: _judged(tap, before.get(tap.name), after.get(tap.name), order, samples)
        for tap in taps
    }


def _judged(
    tap: TapPoint, before: Array | None, after: Array | None, order: Array, samples: int
) -> Judgement:
    if before is None or after is None:
        return Judgement(None, _NOT_THERE)
    followed = tap.per == "sample" and tap.shape is not None and tap.shape[tap.batch_axis] is None
    sized = tap.batch_axis if followed else None
    found = reordered(before, after, order, samples, sized=sized)
    return Judgement(found, NOT_PROVEN if found is None else ANOTHER_ORDER)


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
