"""Open, capture, attach, load: the only place that wires runtimes to stores."""

from __future__ import annotations

import datetime
import inspect
import platform
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import layertap
from layertap.core.axes import BatchAxis, given_axes
from layertap.core.captures import Run
from layertap.core.dtypes import Array
from layertap.core.feeds import Feeds, checked_batch_size, make_feeds
from layertap.core.graph import Graph, TapPoint
from layertap.core.plan import Plan, check_readable, make_plan
from layertap.core.protocols import Exporter, Grouping, Hinting, Json, Keeping, Session
from layertap.core.run import OnProgress, Settings, execute, weights_digest
from layertap.core.select import Selector, canonical, compile_selector, select
from layertap.core.units import parse_bytes
from layertap.errors import (
    FeedError,
    LayertapError,
    NoSuchTap,
    PlanError,
    SelectionError,
    SourceError,
    StoreError,
)
from layertap.runtimes.registry import Runtime, find_runtime, source_path
from layertap.store.memory import MemoryStore


def open(source: Any, runtime: str | None = None, **options: Any) -> Model:
    """Open a model from a path or a live object.

    ``runtime`` picks one where several fit (``"litert"`` or ``"tflm"`` for a ``.tflite``).
    ``options`` are the runtime's own, for instance ``kernels="reference"`` (litert),
    ``arena=96_000`` bytes (tflm) or ``allow_code=True`` for files that hold code.

    Raises UnknownSource, CorruptModel, MissingRuntime or SourceError.
    """
    if isinstance(source, str | Path) and not source_path(source).exists():
        raise SourceError(f"there is no file {str(source)!r}", hint="check the path")
    row = find_runtime(source, runtime)
    try:
        session = row.load().open(source, **options)
    except TypeError as error:
        if not options or "unexpected keyword" not in str(error):
            raise
        hint = f"it takes {', '.join(_option_names(row)) or 'no options'}"
        if "port" in options:
            hint = 'a board is read with runtime="device"'
        raise SourceError(
            f"the runtime {row.name!r} takes no such option: {error}", hint=hint
        ) from error
    return Model(session)


class Model:
    """A source opened in a runtime; a context manager that closes it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._lock = threading.RLock()

    @property
    def graph(self) -> Graph:
        """The tap points in execution order; prints as a table. Incomplete
        (``graph.complete`` is False) while the runtime needs an example: see :meth:`trace`."""
        return self.session.graph

    def trace(self, x: Any) -> Graph:
        """The graph for inputs like ``x`` (one batch), shapes and repeated calls included; a model
        that is known only by running it is run once."""
        with self._lock:
            first, _ = self._feeds(x, None).peek()
            if first is None:
                raise FeedError("the input holds no samples", hint="give at least one")
            return self.session.trace(first[0])

    def plan(
        self,
        taps: Selector = None,
        x: Any = None,
        *,
        samples: int | None = None,
        batch_size: int | None = None,
        batch_axis: BatchAxis | None = None,
        budget: float | str | None = None,
    ) -> Plan:
        """What :meth:`capture` would read: shapes, dtypes and exact bytes per tap and in all.

        ``x`` is an example for runtimes that need one, which run it once, and gives the number of
        samples unless ``samples`` does; without it the plan has what the model tells by itself.
        ``batch_axis`` is as in :meth:`capture`. Raises NoSuchTap, Untappable or BudgetExceeded.
        """
        with self._lock:
            size = checked_batch_size(batch_size) or samples or 1
            batches = None if samples is None else -(-samples // size)
            if x is not None:
                feeds = self._trace_first(self._feeds(x, batch_size, batch_axis), taps)
                if isinstance(self.session, Keeping):
                    self.session.release()
                if samples is None:
                    samples, batches = feeds.samples, feeds.batches
            plan = self._plan(taps, samples, batches, batch_axis=batch_axis)
            plan.check(_budget(budget))
            return plan

    def capture(
        self,
        x: Any,
        taps: Selector = None,
        *,
        to: str | Path | None = None,
        batch_size: int | None = None,
        batch_axis: BatchAxis | None = None,
        keep_inputs: bool = False,
        budget: float | str | None = None,
        compression: str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        verify: bool = False,
        progress: OnProgress | None = None,
    ) -> Run:
        """Run the model over ``x`` and return what ``taps`` select, in memory or written to ``to``.

        ``x`` is an array, a mapping of input names to arrays, a tuple of arrays, or an iterable of
        batches. Without ``batch_size`` an array is one batch. ``taps=None`` reads everything that
        the model computes. ``budget`` (bytes, or a text such as ``"2GB"``) refuses before running
        where the size is known, else as soon as it is passed. ``compression="zstd"`` compresses
        on disk; ``resume`` goes on with an interrupted run; ``overwrite`` replaces an existing one.

        Which axis of a tap counts samples is proven, or the tap has one row per batch; the run's
        provenance tells (``sample_axis``). ``batch_axis={SELECTOR: axis}`` is for who knows better,
        with None for one row per batch; under the name of an input it says which axis of ``x``
        counts samples (sequence first, say). ``verify`` runs each batch twice and compares all
        bits.

        Raises SelectionError, PlanError, RunError or StoreError; what was committed to ``to`` stays
        valid, and Ctrl-C leaves a run that ``resume`` completes.
        """
        with self._lock:
            limit = _budget(budget)
            feeds = self._feeds(x, batch_size, batch_axis)
            feeds = self._trace_first(feeds, taps, keep_inputs)
            plan = self._plan(
                taps, feeds.samples, feeds.batches, keep_inputs=keep_inputs, batch_axis=batch_axis
            )
            plan.check(limit)
            settings = Settings(budget=limit, verify=verify, on_progress=progress)
            if to is None:
                memory = MemoryStore(plan.taps, self._provenance(plan))
                execute(self.session, plan, feeds, memory, settings)
                return memory.run()
            from layertap.store.zarr import ZarrStore

            store = ZarrStore(
                Path(to),
                plan.taps,
                self._provenance(plan, weights=True),
                compression=compression,
                resume=resume,
                overwrite=overwrite,
            )
            execute(self.session, plan, feeds, store, settings)
        return load(to)

    def read(self, name: str) -> Array:
        """The raw value of a weight, without running the model. Raises SelectionError for a name
        that more than one tap goes by."""
        found = select(self.graph, name)
        if len(found) > 1:
            raise SelectionError(
                f"{name!r} matches {len(found)} tap points, one is read at a time",
                hint=f"name one: {', '.join(tap.name for tap in found[:3])}, ...",
            )
        check_readable(found)
        with self._lock:
            return self.session.read(found[0])

    def export(
        self,
        to: str | Path | None = None,
        *,
        add_outputs: Selector = None,
        until: Selector = None,
    ) -> Any:
        """A model that is the extractor: its outputs are taps, and it needs no layertap.

        ``add_outputs`` keeps the model whole and gives it these further outputs. ``until`` keeps
        only what computes these, its only outputs. Written to ``to``, which is returned; without
        it the model is returned as the framework has it (bytes for a .tflite).

        Raises NoSuchTap, Untappable, PlanError where the model or the runtime does not allow it,
        and StoreError for a path that cannot be written.
        """
        if (add_outputs is None) == (until is None):
            raise PlanError(
                "an export needs either add_outputs or until",
                hint='for instance until="*dense_1" for the model up to there',
            )
        session = self.session
        if not isinstance(session, Exporter):
            raise PlanError(
                f"the runtime {session.provenance['runtime']!r} cannot export models",
                hint="Keras, TensorFlow and .tflite models can be exported",
            )
        if not self.graph.complete:
            raise PlanError(
                "the layers are known only after the model has seen an example",
                hint="give it one first: model.trace(x)",
            )
        taps = select(self.graph, until if add_outputs is None else add_outputs)
        origin = (session.provenance.get("model") or {}).get("path")
        if to is not None and origin and Path(to).exists() and Path(origin).samefile(to):
            raise StoreError(
                f"{str(to)!r} is the model itself", hint="write the new model to another path"
            )
        with self._lock:
            return session.export(taps, None if to is None else Path(to), whole=until is None)

    def close(self) -> None:
        """Release the model, once no other thread is using it. Idempotent."""
        with self._lock:
            self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        facts = self.session.provenance
        return f"<Model {facts.get('model')} in {facts.get('runtime')}>\n{self.graph}"

    def _feeds(self, x: Any, batch_size: int | None, batch_axis: BatchAxis | None = None) -> Feeds:
        inputs = self.session.inputs
        names = {name for spec in inputs for name in (spec.name, *spec.also)}
        axes = {name: axis for name, axis in (batch_axis or {}).items() if name in names}
        able = self.session.capabilities
        return make_feeds(x, inputs, batched=able.batched, batch_size=batch_size, batch_axis=axes)

    def _trace_first(self, feeds: Feeds, taps: Selector, keep_inputs: bool = False) -> Feeds:
        first, feeds = feeds.peek()
        if first is not None:
            wanted = compile_selector(canonical(self.graph, taps))
            self.session.trace(
                first[0], lambda tap: wanted(tap) or (keep_inputs and tap.kind == "input")
            )
        return feeds

    def _select(self, taps: Selector) -> tuple[TapPoint, ...]:
        """The tap points that ``taps`` matches. Raises NoSuchTap, with what would make one where
        the session knows."""
        try:
            return select(self.graph, taps)
        except NoSuchTap as error:
            session, hint = self.session, ""
            if isinstance(taps, str) and isinstance(session, Hinting):
                hint = session.hint_for(taps)
            if not hint:
                raise
            raise NoSuchTap(error.message, hint=hint) from None

    def _executions(self, samples: int | None, batches: int | None) -> int | None:
        """How often one pass will execute the model, None while unknown."""
        able = self.session.capabilities
        if able.batched and able.batch is None:
            return batches
        return None if samples is None else samples // (able.batch or 1)

    def _plan(
        self,
        taps: Selector,
        samples: int | None,
        batches: int | None,
        *,
        keep_inputs: bool = False,
        batch_axis: BatchAxis | None = None,
    ) -> Plan:
        graph = self.graph
        chosen = {tap.name for tap in self._select(taps)}
        if keep_inputs:
            chosen |= {tap.name for tap in graph.inputs}
        return make_plan(
            given_axes(graph, [tap for tap in graph if tap.name in chosen], batch_axis or {}),
            group=self.session.group if isinstance(self.session, Grouping) else None,
            samples=samples,
            batches=self._executions(samples, batches),
        )

    def _provenance(self, plan: Plan, *, weights: bool = False) -> dict[str, Json]:
        """What the run's captures come from; with ``weights`` a model that is no file is known by
        a digest of its weights."""
        able = self.session.capabilities
        facts = dict(self.session.provenance)
        if weights and facts["model"].get("sha256") is None:
            facts["model"] = {**facts["model"], "weights_sha256": weights_digest(self.session)}
        facts["bit_exact"] = able.bit_exact
        if not able.bit_exact:
            facts["not_bit_exact_because"] = able.reason
        known = self.session.axes
        facts["sample_axis"] = {tap.name: known[tap.name] for tap in plan.taps if tap.name in known}
        return provenance(facts)


def provenance(facts: Mapping[str, Json]) -> dict[str, Json]:
    """``facts`` about a run, and by what, where and when it is made."""
    return {
        **facts,
        "layertap": layertap.__version__,
        "host": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def attach(
    model: Any, taps: Selector = None, **options: Any
) -> AbstractContextManager[Mapping[str, Any]]:
    """Read ``taps`` of a live ``model`` while the caller runs it in a loop of their own.

    The context manager gives a mapping from tap names to the values of the latest call. Raises
    UnknownSource for what is not a live Keras or PyTorch model.
    """
    row = find_runtime(model)
    module = row.load()
    if isinstance(model, str | Path) or not hasattr(module, "attach"):
        what = "a file" if isinstance(model, str | Path) else f"the runtime {row.name!r}"
        raise SourceError(
            f"only live models of Keras and PyTorch can be attached to, not {what}",
            hint="use layertap.open instead",
        )
    attached: AbstractContextManager[Mapping[str, Any]] = module.attach(model, taps, **options)
    return attached


def export(
    source: Any,
    to: str | Path | None = None,
    *,
    add_outputs: Selector = None,
    until: Selector = None,
    runtime: str | None = None,
    **options: Any,
) -> Any:
    """Open ``source`` and make a model of it whose outputs are taps: see :meth:`Model.export`."""
    with open(source, runtime, **options) as model:
        return model.export(to, add_outputs=add_outputs, until=until)


def load(path: str | Path) -> Run:
    """A run on disk; captures are read when they are asked for. Raises StoreError."""
    from layertap.store.zarr import load_run

    return load_run(Path(path))


def _option_names(row: Runtime) -> list[str]:
    return list(inspect.signature(row.load().open).parameters)[1:]


def _budget(budget: float | str | None) -> int | None:
    if budget is None:
        return None
    try:
        return parse_bytes(budget)
    except ValueError as error:
        raise LayertapError(str(error), hint="give bytes, or a text such as '2GB'") from error
