"""A TensorFlow graph opened for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, InputSpec, as_array
from layertap.core.graph import Graph, TapPoint, format_shape
from layertap.core.messages import brief
from layertap.core.plan import check_readable
from layertap.core.protocols import Capabilities, Emit, Json, Pass, Wanted
from layertap.core.proving import ONE, Judgement, prove, with_axes
from layertap.errors import FeedError, LayertapError, RunError, RuntimeFailure
from layertap.runtimes.tensorflow.batching import Batching, batching
from layertap.runtimes.tensorflow.catalog import Catalog, catalog
from layertap.runtimes.tensorflow.export import extractor, save
from layertap.runtimes.tensorflow.live import Untraced
from layertap.runtimes.tensorflow.opened import Input, Opened
from layertap.runtimes.tensorflow.reading import Reading, Shared
from layertap.runtimes.tfgraph.internals import report

REASON = (
    "TensorFlow's graph optimizer fuses and folds operations differently when values in between "
    "become outputs: the last bits can differ"
)

KEPT = 16
"""How many selections stay compiled."""
RANDOM = Judgement(None, "it may depend on random numbers, which a further run would draw anew")


class TensorFlowSession:
    """See :class:`layertap.core.protocols.Session`.

    Variables that the graph assigns are copies that start each batch with the model's own values;
    the model's are never assigned.
    """

    def __init__(self, source: Opened | Untraced) -> None:
        self._source: Opened | Untraced | None = source
        self._opened: Opened | None = None
        self._batching = Batching(True, None)
        self._catalog = Catalog(Graph((), complete=False))
        self._traced: dict[Any, list[tuple[Opened, Batching, Catalog]]] = {}
        self._shared: Shared | None = None
        self._readings: dict[Any, Reading] = {}
        self._axes: dict[str, str] = {}
        self._untraced = isinstance(source, Untraced)
        if isinstance(source, Opened):
            self._untraced = any(one.shape is None for one in source.inputs)
            self._use(source)

    def _use(self, opened: Opened) -> tuple[Opened, Batching, Catalog]:
        self._opened = opened
        self._batching = batching(opened.inputs)
        if self._untraced and not self._batching.batched:
            # The feeds that are to come are cut into batches before the shapes are known.
            self._batching = Batching(True, None)
        self._catalog = catalog(opened, self._batching)
        return self._opened, self._batching, self._catalog

    @property
    def graph(self) -> Graph:
        return self._catalog.graph

    @property
    def inputs(self) -> Sequence[InputSpec]:
        if isinstance(self._source, Untraced):
            return self._source.inputs
        # As the source declares them, not as the latest example has filled them in.
        declared = () if self._source is None else self._source.inputs
        return [self._batching.spec(one) for one in declared]

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            # A function that holds for one size is traced anew for the next.
            batch=None if isinstance(self._source, Untraced) else self._batching.size,
            batched=self._batching.batched,
            traced=self._untraced,
            bit_exact=False,
            reason=REASON,
        )

    @property
    def provenance(self) -> Mapping[str, Json]:
        facts = {} if self._opened is None else self._opened.provenance
        known = {"runtime": "tensorflow", "version": tf.__version__, "model": {}, **facts}
        return {**known, "internals": dict(report())} if report() else known

    @property
    def axes(self) -> Mapping[str, str]:
        return self._axes

    def trace(self, feed: Feed, wanted: Wanted | None = None, /) -> Graph:
        """The graph for feeds like this one, in which it is proven which axis of the ``wanted``
        taps counts samples. Raises FeedError when it does not take the feed."""
        self._check_open()
        if self._untraced:
            self._complete(feed)
        axes = self._catalog.axes
        taps = [tap for tap in self.graph if tap.name in axes and not tap.untappable]
        self._prove(feed, [tap for tap in taps if wanted is None or wanted(tap)])
        return self.graph

    def _complete(self, feed: Feed) -> None:
        """Use the graph for feeds like this one."""
        arrays = {name: as_array(name, value) for name, value in feed.items()}
        traces = self._traced.setdefault(tuple((n, a.dtype) for n, a in arrays.items()), [])
        found = next((trace for trace in traces if _takes(trace[0], arrays)), None)
        if found is None:
            if isinstance(self._source, Untraced):
                opened = self._source.trace(arrays)
            else:
                opened = self._ranked(arrays)
            found = self._use(opened)
            traces.append(found)
        self._opened, self._batching, self._catalog = found

    def _prove(self, feed: Feed, taps: Sequence[TapPoint]) -> None:
        """Find out which axis of ``taps`` counts samples where nobody knows, by a further run."""
        listed, batching = self._catalog, self._batching
        self._axes = {tap.name: listed.axes[tap.name] for tap in taps}
        doubtful = [tap for tap in taps if not listed.axes[tap.name]]
        if not doubtful or not batching.batched:
            return
        counted = {one.name for one in self._fed() if batching.counts(one)}
        size = batching.size
        feed = {name: one[:size] if name in counted else one for name, one in feed.items()}
        arrays = self._arrays(feed)
        samples = self._samples(arrays)
        if batching.size not in (None, samples):
            return  # a batch that will be refused
        found: Mapping[str, Judgement] = {tap.name: ONE for tap in doubtful}
        if samples > 1:
            read = partial(self._compute, taps)
            found = (
                {tap.name: RANDOM for tap in doubtful}
                if self._reading(taps, tuple(arrays)).random
                else prove(doubtful, arrays, read, samples, counted)
            )
            listed.axes.update({name: one.evidence for name, one in found.items()})
            listed.graph = with_axes(listed.graph, found)
        self._axes.update({name: one.evidence for name, one in found.items()})

    def read(self, tap: TapPoint, /) -> Array:
        self._check_open()
        if tap.name not in self._catalog.weights:
            raise RunError(f"{tap.name!r} is no weight", hint="capture it instead")
        return self._catalog.weights[tap.name]()

    def prepare(self, taps: Sequence[TapPoint], /) -> Pass:
        self._check_open()
        check_readable(taps)
        computed = [tap for tap in taps if tap.kind != "input"]
        return partial(self._run, tuple(taps), computed)

    def export(self, taps: Sequence[TapPoint], to: Path | None, /, *, whole: bool) -> Any:
        """A module with copies of the variables; or, written to ``to``, a SavedModel folder."""
        self._check_open()
        assert self._opened is not None
        made = extractor(self._opened, self._catalog, taps, whole=whole)
        if to is None:
            return made
        save(made, to)
        return to

    def close(self) -> None:
        self._source = self._opened = self._shared = None
        self._traced.clear()
        self._readings.clear()
        self._catalog.weights.clear()

    def _check_open(self) -> Opened | Untraced:
        if self._source is None:
            raise RunError("the model is closed", hint="open it again")
        return self._source

    def _fed(self) -> tuple[Input, ...]:
        return () if self._opened is None else self._opened.inputs

    def _run(
        self, taps: tuple[TapPoint, ...], computed: Sequence[TapPoint], feed: Feed, emit: Emit
    ) -> None:
        self._check_open()
        if self._untraced:
            self._complete(feed)
        arrays = self._arrays(feed)
        # What a trace for other sizes has no tap of, has no row.
        there = [tap for tap in computed if tap.name in self._catalog.found]
        found = self._compute(there, arrays) if there else {}
        for tap in taps:
            if tap.kind == "input" and tap.name in arrays:
                emit(tap, arrays[tap.name].copy()[None])
            elif tap.name in found:
                emit(tap, found[tap.name][None])

    def _arrays(self, feed: Feed) -> dict[str, Array]:
        """The fed arrays in the order of the inputs. Raises FeedError for wrong shapes."""
        arrays: dict[str, Array] = {}
        for one in self._fed():
            if one.name not in feed:
                continue
            array = as_array(one.name, feed[one.name])
            if not one.takes(array.shape):
                raise FeedError(
                    f"the input {one.name!r} has shape {format_shape(array.shape)}, "
                    f"expected {format_shape(one.shape)}",
                    hint=f"dtype {one.dtype.name}",
                )
            arrays[one.name] = array
        return arrays

    def _compute(self, taps: Sequence[TapPoint], arrays: Mapping[str, Array]) -> dict[str, Array]:
        try:
            reading = self._reading(taps, tuple(arrays))
            return reading(list(arrays.values()), self._samples(arrays))
        except LayertapError:
            raise
        except Exception as error:
            raise RuntimeFailure(
                f"TensorFlow failed while running the graph: {brief(error)}",
                hint="run the model on this input without layertap to see whether it takes it",
            ) from error

    def _reading(self, taps: Sequence[TapPoint], fed: tuple[str, ...]) -> Reading:
        """What reads ``taps``; the latest ones are kept."""
        assert self._opened is not None
        key = id(self._opened), fed, tuple(tap.name for tap in taps)
        if key not in self._readings:
            if self._shared is None:
                self._shared = Shared(self._opened)
            made = Reading(self._opened, self._catalog, taps, fed, self._shared)
            if not made.lasting:
                return made
            while len(self._readings) >= KEPT:
                self._readings.pop(next(iter(self._readings)))
            self._readings[key] = made
        return self._readings[key]

    def _samples(self, arrays: Mapping[str, Array]) -> int:
        counted = (one.name for one in self._fed() if self._batching.counts(one))
        return next((len(arrays[name]) for name in counted if name in arrays), 1)

    def _ranked(self, arrays: Mapping[str, Array]) -> Opened:
        """The graph with ranks for inputs of unknown rank, as they are fed."""
        assert isinstance(self._source, Opened)
        inputs = tuple(
            replace(one, shape=(None, *arrays[one.name].shape[1:]) if arrays[one.name].ndim else ())
            if one.shape is None and one.name in arrays
            else one
            for one in self._source.inputs
        )
        return replace(self._source, inputs=inputs)


def _takes(opened: Opened, arrays: Mapping[str, Array]) -> bool:
    """Whether a trace, which may hold for one batch size only, is for such arrays."""
    fed = (one for one in opened.inputs if one.name in arrays)
    return all(one.takes(arrays[one.name].shape) for one in fed)
