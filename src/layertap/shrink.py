"""Models that need a smaller arena and give the same values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layertap.api import Model
from layertap.arena.mapping import memory_map
from layertap.arena.memory_map import MemoryMap, Overlaps, Sharing
from layertap.arena.optimize import Layout, best_layout
from layertap.arena.target import REFERENCE, load_target
from layertap.core.captures import Run
from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.feeds import InputSpec
from layertap.core.files import read_whole, write_whole
from layertap.errors import (
    FeedError,
    MissingRuntime,
    PlanError,
    RunError,
    RuntimeFailure,
    StoreError,
)
from layertap.runtimes.tflm import TflmSession
from layertap.tflite.edit import OFFLINE_PLAN
from layertap.tflite.model import TfliteModel, parse
from layertap.tflite.relayout import LAYOUT_NOTE, with_layout
from layertap.tflite.schema import OPERATORS

SAMPLES = 4
"""Random inputs that old and new model are compared on."""


@dataclass(frozen=True)
class Optimized:
    """A model with a better layout of its activations.

    ``data``: the new file, or the old one where nothing better was found (``changed`` is False). A
    layout that shares more than it may, or is not right with the kernels, is replaced in any case.
    ``before`` and ``after``: where everything lies in both. ``layout``: what was found, what it
    shares, and the bound below which no layout can go. ``verified``: the number of samples for
    which every output was the same, bit for bit, in TensorFlow Lite Micro on this machine; 0 where
    that was not tried or not possible, and then ``unverified`` says why.
    """

    source: Path | None
    data: bytes
    before: MemoryMap
    after: MemoryMap
    layout: Layout
    changed: bool
    verified: int
    unverified: str

    @property
    def saved(self) -> int:
        """Bytes by which the smallest arena that works has become smaller; below 0 where a layout
        had to be given up."""
        return self.before.arena.minimum - self.after.arena.minimum

    def write(self, path: str | Path) -> None:
        """Write the new model to ``path``, whole or not at all; what is there is replaced.

        Raises StoreError where that would be the model itself, or if it cannot be written.
        """
        path = Path(path)
        if self.source is not None and path.exists() and path.samefile(self.source):
            raise StoreError(
                f"{str(path)!r} is the model itself", hint="write the new one to another file"
            )
        write_whole(path, self.data)


def optimize(
    source: str | Path | bytes,
    target: str = "host",
    *,
    version: str | None = None,
    kernels: str = REFERENCE,
    sharing: Sharing = "in-place",
    x: Any = None,
    verify: bool = True,
) -> Optimized:
    """Find a layout of the activations of a .tflite file that needs less of the arena than the
    interpreter's own, and put it into the file, where TensorFlow Lite Micro finds it.

    ``target``, ``version`` and ``kernels`` are what ``layertap.memory`` takes. ``sharing``:
    ``"none"``; ``"in-place"``, results may replace an operand where the kernel allows it;
    ``"overlapping"``, results may also reach into an operand from below, which the order of the
    reference kernels allows and which saves most. Kernels that ``kernels`` has of its own share
    nothing. The new model is run beside the old one on ``x`` (random inputs without) and is
    handed out only if every output is the same, unless ``verify`` is False.

    Raises SourceError or CorruptModel, PlanError for a model whose layout is not ours to change,
    FeedError for ``x`` that does not fit, RuntimeFailure if the new model gives other values.
    """
    path = None if isinstance(source, bytes) else Path(source)
    data = read_whole(source)
    model = parse(data)
    _check(model)
    chip = load_target(target, version, kernels=kernels)
    before = memory_map(model, chip)
    plain = model
    if OFFLINE_PLAN in model.metadata:
        plain = parse(with_layout(data, [None] * sum(len(g.tensors) for g in model.subgraphs)))
    layout = best_layout(plain, memory_map(plain, chip), sharing=sharing, kernels=kernels)
    kind = Overlaps(layout.shared).kind
    new = with_layout(data, layout.offsets, {"sharing": kind, "kernels": kernels})
    after = memory_map(parse(new), chip)
    if before.overlaps.allowed(sharing, kernels) and not _is_better(after, before):
        return Optimized(path, data, before, before, layout, False, 0, "the model is unchanged")
    # What a layout of its own makes of the values is no measure.
    verified, unverified = _verified(plain.data, new, x) if verify else (0, "not asked for")
    return Optimized(path, new, before, after, layout, True, verified, unverified)


def _is_better(after: MemoryMap, before: MemoryMap) -> bool:
    new, old = after.arena, before.arena
    return new.minimum <= old.minimum and new.head < old.head


def _check(model: TfliteModel) -> None:
    custom = {op.name for graph in model.subgraphs for op in graph.operators} - set(OPERATORS)
    if custom and OFFLINE_PLAN in model.metadata and LAYOUT_NOTE not in model.metadata:
        raise PlanError(
            f"the model has a layout of its own, made for its operator {min(custom)!r}",
            hint="a compiler for an accelerator relies on it; leave it as it is",
        )


def _verified(old: bytes, new: bytes, x: Any) -> tuple[int, str]:
    """The number of samples on which both models agree, or 0 and why they were not run.

    State is kept from sample to sample, so that what a model remembers is compared too.
    """
    with ExitStack() as stack:
        models = [
            stack.enter_context(Model(TflmSession(data, keep_state=True))) for data in (old, new)
        ]
        for spec in models[0].session.inputs:
            if numpy_dtype(spec.dtype or "") is None:
                return 0, f"its input {spec.name!r} holds {spec.dtype}, not numbers"
        outputs = models[0].graph.outputs
        compared = [tap.name for tap in outputs if not tap.untappable]
        if not compared:
            return 0, "none of its outputs can be read"
        feed = _random(models[0].session.inputs) if x is None else x
        if isinstance(feed, Iterator):
            feed = list(feed)
        try:
            expected = models[0].capture(feed, taps=compared)
        except (MissingRuntime, RunError) as error:
            if x is not None and isinstance(error, FeedError):
                raise
            return 0, error.message
        found = models[1].capture(feed, taps=compared)
        _compare(expected, found)
        for tap in outputs:
            if tap.untappable:
                return 0, f"its output {tap.name!r} cannot be compared: {tap.untappable}"
        return expected.samples, ""


def _compare(expected: Run, found: Run) -> None:
    for name, capture in expected.items():
        if capture.raw.tobytes() != found[name].raw.tobytes():
            raise RuntimeFailure(
                f"with the new layout the model gives other values for {name!r}",
                hint='sharing="none" gives up what is shared; please report the model',
            )


def _random(inputs: Sequence[InputSpec]) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    return [{spec.name: _random_value(spec, rng) for spec in inputs} for _ in range(SAMPLES)]


def _random_value(spec: InputSpec, rng: np.random.Generator) -> Array:
    dtype = numpy_dtype(spec.dtype or "")
    assert dtype is not None
    shape = tuple(1 if size is None else size for size in spec.shape or ())
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


__all__ = ["SAMPLES", "Optimized", "optimize"]
