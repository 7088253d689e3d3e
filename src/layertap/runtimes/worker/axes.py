"""Which axis of a tensor counts samples, in a file whose batch has a fixed size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from layertap.core.axes import changed_order, reordered
from layertap.core.dtypes import Array, is_real
from layertap.core.feeds import Feed
from layertap.core.graph import Graph, TapPoint
from layertap.core.inputs import InputSpec

ONE_SAMPLE = "one sample"
GIVEN = "given"
ANOTHER_ORDER = "a further run, in another order"
NO_AXIS = "none of its axes has the size of the batch"
ALIKE = "its values are the same for samples in any order"
NOT_PROVEN = "a further run of the samples in another order gave other values"

_OTHERS = 3
"""Further batches, where the first one tells nothing."""

Judgement = tuple[int | None, str]
"""The axis that counts samples, if there is one, and how that is known."""

Run = Callable[[Sequence[TapPoint], Feed], Mapping[str, Sequence[Array]]]
"""Gives the values of taps by name, in one array (executions, ...) or several, and leaves the state
of the model as it is."""


class Prover:
    """Finds out which axis of tensors counts samples, for a model that takes ``batch`` samples at a
    time as ``inputs``: by running the first batch once more in another order."""

    def __init__(self, inputs: Sequence[InputSpec], batch: int) -> None:
        self.inputs, self.batch = inputs, batch
        self.order = changed_order(batch, longer=False)
        self._known: dict[object, dict[str, Judgement]] = {}

    def prove(self, taps: Sequence[TapPoint], feed: Feed, run: Run) -> Mapping[str, Judgement]:
        """What is known of tensors for feeds of this form, after ``run`` was asked for those of
        ``taps`` of which nothing was. Nothing new where the feed holds no whole batch."""
        first = {spec.name: np.asarray(feed[spec.name])[: self.batch] for spec in self.inputs}
        known = self._known.setdefault(tuple(value.shape for value in first.values()), {})
        new = [tap for tap in taps if tap.name not in known]
        known |= {tap.name: (0, GIVEN) for tap in new if tap.kind == "input"}
        new = [tap for tap in new if tap.name not in known]
        if all(len(value) == self.batch for value in first.values()):
            known |= self._tried(new, [first], run)
            alike = [tap for tap in new if known[tap.name][1] == ALIKE]
            known |= self._tried(alike, _others_like(first, self.inputs), run)
        return known

    def _tried(
        self, taps: Sequence[TapPoint], batches: Sequence[Feed], run: Run
    ) -> dict[str, Judgement]:
        """What ``batches`` tell, each of which is followed by the same in another order."""
        feed = {
            spec.name: np.concatenate(
                [np.asarray(b[spec.name])[rows] for b in batches for rows in (..., self.order)]
            )
            for spec in self.inputs
        }
        emitted = run(taps, feed) if taps else {}
        return {name: self._judged(values) for name, values in emitted.items()}

    def _judged(self, emitted: Sequence[Array]) -> Judgement:
        executions = [value for values in emitted for value in values]
        pairs = list(zip(executions[::2], executions[1::2], strict=True))
        if not any(self.batch in before.shape for before, _ in pairs):
            return None, NO_AXIS
        telling = [pair for pair in pairs if not np.array_equal(*pair)]
        axes = {reordered(before, after, self.order, self.batch) for before, after in telling}
        if len(axes) == 1 and None not in axes:
            return axes.pop(), ANOTHER_ORDER
        return None, NOT_PROVEN if telling else ALIKE


def _others_like(feed: Feed, inputs: Sequence[InputSpec]) -> list[Feed]:
    """Some more batches of the form of ``feed``, of random values, for where its own samples are
    alike, or all end in zeros."""
    rng = np.random.default_rng(0)
    return [
        {spec.name: _values_like(np.asarray(feed[spec.name]), spec, rng) for spec in inputs}
        for _ in range(_OTHERS)
    ]


def _values_like(value: Array, spec: InputSpec, rng: np.random.Generator) -> Array:
    if is_real(value.dtype):
        most = float(np.abs(value[np.isfinite(value)]).max(initial=0)) or 1.0
        reals: Array = np.asarray(rng.uniform(-most, most, value.shape))
        return reals.astype(value.dtype)
    if spec.quantization is not None:
        limits = np.iinfo(value.dtype)
        codes: Array = np.asarray(rng.integers(limits.min, limits.max, value.shape, endpoint=True))
        return codes.astype(value.dtype)
    # They may be indices into something; no others than were given.
    return np.asarray(rng.choice(value.ravel(), value.shape))


def with_axes(graph: Graph, known: Mapping[str, Judgement]) -> Graph:
    """``graph`` with what is known of some of its tap points."""
    return Graph(
        tap if tap.name not in known else _judged(tap, known[tap.name][0]) for tap in graph
    )


def _judged(tap: TapPoint, axis: int | None) -> TapPoint:
    return replace(tap, per="batch" if axis is None else "sample", batch_axis=axis or 0)


__all__ = ["ONE_SAMPLE", "Judgement", "Prover", "with_axes"]
