"""Record what a board sends on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.api import load, provenance
from layertap.core.captures import Run
from layertap.core.dtypes import Array
from layertap.core.graph import TapPoint
from layertap.core.protocols import Remembering, Sink
from layertap.core.run import OnProgress, Progress
from layertap.core.select import Selector
from layertap.errors import PlanError
from layertap.runtimes.registry import find_runtime
from layertap.store.memory import MemoryStore
from layertap.store.place import check_place
from layertap.store.zarr import ZarrStore

if TYPE_CHECKING:
    from layertap.runtimes.device.listening import Listener

OnInference = Callable[[int, Mapping[str, Array]], None]
"""Called with the number that an inference has on the board, and the raw value of each tap."""


@contextmanager
def listening(
    port: str | Path,
    source: str | Path | bytes,
    taps: Selector = None,
    *,
    baud: int | None = None,
    every: int | None = None,
    slices: str | Mapping[str, str] | None = None,
    reduce: str | Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Iterator[Listener]:
    """A connection to a board that gives its inferences as they come; see :func:`listen`."""
    device = find_runtime(source, "device").load()
    with closing(
        device.listener(
            port,
            source,
            taps,
            baud=baud,
            every=every,
            slices=slices,
            reduce=reduce,
            timeout=timeout,
        )
    ) as listener:
        yield listener


def listen(
    port: str | Path,
    source: str | Path | bytes,
    taps: Selector = None,
    *,
    to: str | Path | None = None,
    samples: int | None = None,
    baud: int | None = None,
    every: int | None = None,
    slices: str | Mapping[str, str] | None = None,
    reduce: str | Mapping[str, str] | None = None,
    timeout: float | None = None,
    compression: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_inference: OnInference | None = None,
    progress: OnProgress | None = None,
) -> Run:
    """Record what a board on ``port`` sends on its own, of the model ``source``.

    ``port`` is what :func:`layertap.open` takes for the runtime ``device``, a file with recorded
    bytes, a FIFO, or ``"-"`` for standard input. ``taps=None`` takes everything that is sent.
    Listening ends after ``samples``, or where the stream ends. Only whole inferences count; what
    was lost is counted in the run's provenance (``observed``). ``every``, ``slices`` and ``reduce``
    are told to a board that can be told; one that cannot sends what its firmware fixes.
    ``timeout``: seconds without a message after which the board is given up; None waits for ever.
    ``resume`` appends to the run at ``to``; the rest is as in :meth:`layertap.Model.capture`.

    Raises SourceError, SelectionError, PlanError, RunError, WireError or StoreError; what was
    committed to ``to`` stays valid, also after Ctrl-C.
    """
    if to is None and samples is None:
        raise PlanError(
            "memory would fill up: neither a place for the run nor an end was given",
            hint="give to='run.zarr', or samples=N",
        )
    if samples is not None and samples < 1:
        raise PlanError(f"{samples} samples are not possible", hint="give 1 or more")
    if to is not None:
        check_place(Path(to), resume=resume, overwrite=overwrite)
    with listening(
        port,
        source,
        taps,
        baud=baud,
        every=every,
        slices=slices,
        reduce=reduce,
        timeout=timeout,
    ) as listener:
        recording = _Recording(listener, to, compression, resume, overwrite)
        return recording.run(samples, on_inference, progress)


class _Recording:
    """A listener whose inferences go into a store, which is made when the taps are known."""

    def __init__(
        self,
        listener: Listener,
        to: str | Path | None,
        compression: str | None,
        resume: bool,
        overwrite: bool,
    ) -> None:
        self._listener = listener
        self._to = to
        self._options = {"compression": compression, "resume": resume, "overwrite": overwrite}
        self._rows = listener.device.batch or 1
        self._bytes = 0

    def run(
        self, samples: int | None, on_inference: OnInference | None, progress: OnProgress | None
    ) -> Run:
        sink: Sink | None = None
        complete = False
        try:
            for heard in self._listener:
                if sink is None:
                    sink = self._sink()
                if samples is not None and sink.samples >= samples:
                    break  # of a run that is resumed
                self._write(sink, heard.values)
                if on_inference is not None:
                    on_inference(heard.number, heard.values)
                if progress is not None:
                    progress(Progress(sink.samples, samples, sink.samples, samples, self._bytes))
                if samples is not None and sink.samples >= samples:
                    break
            complete = sink is not None and (samples is None or sink.samples >= samples)
        finally:
            if sink is not None:
                if isinstance(sink, Remembering):
                    sink.remember(self._listener.counters())
                sink.close(complete)
        assert sink is not None  # a listener without an inference raises
        return sink.run() if isinstance(sink, MemoryStore) else load(str(self._to))

    def _sink(self) -> Sink:
        taps = self._listener.taps
        facts = provenance(
            {**self._listener.device.provenance, **self._listener.facts(), "one_way": True}
        )
        if self._to is None:
            return MemoryStore(taps, facts)
        store = ZarrStore(Path(self._to), taps, facts, **self._options)  # type: ignore[arg-type]
        if store.samples:
            # A board cannot send again what was recorded: more is appended.
            store.skip(store.samples, {})
        return store

    def _write(self, sink: Sink, values: Mapping[str, Array]) -> None:
        for tap in self._listener.taps:
            if tap.name in values:
                rows = _rows(tap, values[tap.name])
                self._bytes += rows.nbytes
                sink.write(tap, rows)
        sink.commit(self._rows, {})


def _rows(tap: TapPoint, value: Array) -> Array:
    return value if tap.per == "sample" else value[None]


__all__ = ["OnInference", "listen", "listening"]
