"""Which axis of a tensor counts samples: the rule that all runtimes share.

A size proves nothing by itself: queries, channels or experts' rows may be as many as the samples.
What does is following the axis through every operation, which is a runtime's own affair, or one
further run of a changed batch, which is judged here. Where neither can tell, a tensor has one row
per batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from layertap.core.dtypes import Array, is_real, precision, rounding
from layertap.core.graph import Graph, TapPoint, format_shape
from layertap.core.select import select
from layertap.errors import PlanError

Evidence = Literal[
    "followed op by op",
    "a further run, of another size",
    "a further run, in another order",
    "one sample",
    "given",
]
"""How it is known which axis counts samples."""


BatchAxis = Mapping[str, int | None]
"""By selector, the axis that counts samples; None where none does."""


def given_axes(graph: Graph, taps: Sequence[TapPoint], given: BatchAxis) -> list[TapPoint]:
    """``taps`` of ``graph`` with the axes that the caller knows of. Raises SelectionError, and
    PlanError for an axis that a tap does not have."""
    if not given:
        return list(taps)
    axes = {tap.name: axis for chosen, axis in given.items() for tap in select(graph, chosen)}
    return [_given(tap, axes[tap.name]) if tap.name in axes else tap for tap in taps]


def _given(tap: TapPoint, axis: int | None) -> TapPoint:
    if tap.per == "run":
        return tap
    if axis is None:
        return replace(tap, per="batch", batch_axis=0)
    rank = None if tap.shape is None else len(tap.shape)
    if rank is None and axis < 0:
        raise PlanError(
            f"how many axes {tap.name!r} has is not known", hint="count the batch axis from 0"
        )
    if rank is not None and not -rank <= axis < rank:
        raise PlanError(
            f"{tap.name!r} has no axis {axis}: its shape is {format_shape(tap.shape)}",
            hint=f"give an axis from 0 to {rank - 1}, or None",
        )
    axis %= rank or axis + 1
    shape = tap.shape
    if shape is not None:
        shape = (*shape[:axis], None, *shape[axis + 1 :])
    return replace(tap, per="sample", shape=shape, batch_axis=axis)


def changed_order(samples: int, *, longer: bool) -> Array:
    """Which of ``samples`` samples (2 or more) make up the changed batch of a further run: the last
    one, the first one twice, then the others; as many, or one more if the batch may be ``longer``.

    What turns a batch around, moves it on or sorts it does something else to this than to the batch
    as it was, also where the samples came in a rising order.
    """
    if samples == 2 and not longer:
        return np.array([1, 1])
    order = np.maximum(np.arange(samples + longer) - 2, 0)
    order[0] = samples - 1
    return order


def reordered(
    before: Array, after: Array, order: Array, samples: int, *, sized: int | None = None
) -> int | None:
    """The only axis along which ``after``, of a batch of the samples ``order``, is ``before``, of
    all ``samples`` as they come, within rounding; None where there is none, or more than one.

    Samples that are all alike tell nothing about their order, unless it is known that ``sized`` is
    the only axis whose size follows the batch: then only that one comes into question.
    """
    possible = range(before.ndim) if sized is None else (sized,)
    axes = [
        axis
        for axis in possible
        if before.shape[axis] == samples and _is_taken(before, after, order, axis)
    ]
    if sized is None and before.shape == after.shape and _close(before, after):
        return None
    return axes[0] if len(axes) == 1 else None


def _is_taken(before: Array, after: Array, order: Array, axis: int) -> bool:
    expected = np.take(before, order, axis=axis)
    return expected.shape == after.shape and _close(expected, after)


def _close(a: Array, b: Array) -> bool:
    """Whether two arrays of one dtype and shape are equal but for rounding: an integer of a
    quantized tensor may differ by one, a float by :func:`rounding`, at the scale of the array."""
    if a.dtype.kind == "b":
        return bool((a == b).all())
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    x, y = a.astype(wide), b.astype(wide)
    finite = np.isfinite(x) & np.isfinite(y)
    if not (finite | (x == y) | (np.isnan(x) & np.isnan(y))).all():
        return False
    scale = np.abs(x, where=finite, out=np.zeros(x.shape)).max(initial=0.0)
    inexact = a.dtype.kind == "c" or is_real(a.dtype)
    allowed = scale * rounding(precision(a.dtype)) if inexact else 1.0
    apart = np.subtract(x, y, where=finite, out=np.zeros(x.shape, wide))
    return bool((np.abs(apart) <= allowed).all())
