"""What a runtime and a store implement; everything else in layertap is written against these."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, InputSpec
from layertap.core.graph import Graph, TapPoint

Emit = Callable[[TapPoint, Array], None]
"""Gets the values of one tap in all executions of a call of a pass, stacked on axis 0, above the
tensor's own axes; tap by tap in graph order. Where shapes differ between executions it is called
several times for one tap, in order. The array is the receiver's to keep."""

Pass = Callable[[Feed, Emit], None]
"""Runs one batch, or up to :attr:`Capabilities.block` executions of a fixed batch."""

Wanted = Callable[[TapPoint], bool]
"""Whether the caller is going to read a tap point."""

Json = Any
"""A value that the json module can write."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a session can and cannot do.

    batch: the only batch size that one pass takes; None when it takes any.
    batched: the inputs have a batch axis; without one, an execution takes exactly one sample.
    block: the most executions that one call of a pass takes, where ``batch`` is fixed or there is
        no batch axis; above 1, an additional leading axis of what is fed without a batch axis
        enumerates them.
    traced: the graph is complete only after :meth:`Session.trace` has seen an example feed.
    bit_exact: the model's outputs are the same bits with and without taps.
    reason: why not, when ``bit_exact`` is False; written into every run's provenance.
    """

    batch: int | None = None
    batched: bool = True
    block: int = 1
    traced: bool = False
    bit_exact: bool = True
    reason: str = ""


class Session(Protocol):
    """A model loaded in one runtime. Its owner calls it from one thread at a time, and closes it;
    close is idempotent."""

    @property
    def graph(self) -> Graph: ...

    @property
    def inputs(self) -> Sequence[InputSpec]:
        """What a feed must hold; feeds are checked against it before they reach a pass."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def provenance(self) -> Mapping[str, Json]:
        """``runtime`` and ``version``; ``model``, a mapping of ``sha256`` (of the file, or None)
        and ``path`` or the type's name; and every option that influences values, as ``kernels``.
        """
        ...

    @property
    def axes(self) -> Mapping[str, str]:
        """How it is known which axis of a tap counts samples, or why it is not, by tap name; for
        the taps that a trace was asked for. See :data:`layertap.core.axes.Evidence`."""
        ...

    def trace(self, feed: Feed, wanted: Wanted | None = None, /) -> Graph:
        """Complete the graph for feeds like this one and return it; cheap when nothing is new.

        Proves which axis counts samples by following it, or else, for the taps that are ``wanted``,
        by one further run of a changed batch; a tap of which nothing proves it has one row per
        batch. What that run did to the model's state is undone. A session may
        keep what is ``wanted`` of this feed for the pass that is prepared next. Raises FeedError
        when the model does not take the feed.
        """
        ...

    def read(self, tap: TapPoint, /) -> Array:
        """The value of a weight, without running the model; the array is the receiver's."""
        ...

    def prepare(self, taps: Sequence[TapPoint], /) -> Pass:
        """Do the work that a selection needs once; the returned pass runs one batch.

        ``taps`` are tap points of the graph, weights excepted, in graph order. Model inputs may
        be among them. Raises Untappable or BudgetExceeded; the pass raises FeedError or
        RuntimeFailure. One that fails in a later execution of several has emitted those before it,
        and says so in :attr:`RuntimeFailure.execution`.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class Exporter(Protocol):
    """A session that can also make a model of its own whose outputs are taps."""

    def export(self, taps: Sequence[TapPoint], to: Path | None, /, *, whole: bool) -> Any:
        """Write the model to ``to``, or return it in the framework's own form with None.

        ``whole``: the model with ``taps`` as further outputs; else the part that computes them,
        with no other output. The path appears complete or not at all. Raises Untappable, and
        PlanError where the framework cannot express it.
        """
        ...


@runtime_checkable
class Grouping(Protocol):
    """A session that decides itself which taps one pass can read together, where their number
    does not tell: each tap may need a different amount of the device's memory."""

    def group(self, taps: Sequence[TapPoint], /) -> Sequence[Sequence[TapPoint]]:
        """``taps`` in as few groups as possible, each of which :meth:`Session.prepare` takes.

        ``taps`` are as in :meth:`Session.prepare`; every one is in exactly one group, the groups
        are in graph order, and the same taps give the same groups. Nothing is run. Raises
        ArenaExceeded for a tap that no pass can read, and Untappable.
        """
        ...


@runtime_checkable
class Keeping(Protocol):
    """A session that may keep values of the feed that was traced, for the pass to read it."""

    def release(self) -> None:
        """Let go of them: no pass is going to read that feed."""
        ...


@runtime_checkable
class Hinting(Protocol):
    """A session that knows why a selector may match nothing."""

    def hint_for(self, selector: str, /) -> str:
        """What would make a tap of it, as a part of a sentence; empty where nothing would."""
        ...


@runtime_checkable
class Observing(Protocol):
    """A session that can tell at the end of a run what it met with, such as losses on a link."""

    @property
    def observed(self) -> Mapping[str, int]:
        """Counts since the last :meth:`Session.prepare`, for the run's provenance."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A sink whose provenance can be added to while the run goes on."""

    def remember(self, observed: Mapping[str, int], /) -> None:
        """Write down the counts of an :class:`Observing` session as ``observed``; those of a run
        that is resumed are added to what they were."""
        ...


class Sink(Protocol):
    """Receives the captures of one run, batch by batch.

    ``write`` gets the next rows of a tap, enumerated on axis 0: one per sample, or per execution
    for ``per="batch"``; a batch may come in several writes. For ``per="run"`` it gets the
    value itself, once, at the start. What was written counts only after ``commit``.
    """

    @property
    def samples(self) -> int:
        """Samples already committed; above 0 when an interrupted run is resumed."""
        ...

    def write(self, tap: TapPoint, rows: Array, /) -> None: ...

    @property
    def demoted(self) -> Collection[str]:
        """Names of taps that have a row per batch although they were thought to have one per
        sample: :meth:`demote` was called for them, also before the run was resumed."""
        ...

    def commit(self, samples: int, feed: Feed, executions: int = 1, /) -> None:
        """``samples`` more samples, fed by ``feed``, are complete; it took ``executions``, of as
        many samples each."""
        ...

    def skip(self, samples: int, feed: Feed, /) -> None:
        """The next ``samples`` samples are committed already; raises StoreError when ``feed`` is
        not what they were captured from."""
        ...

    def demote(self, tap: TapPoint, executions: Sequence[tuple[int, int]], /) -> None:
        """``tap`` was thought to have a row per sample, and has one per batch from its first row
        on: what was written of it is put together again, along its batch axis. ``executions`` are
        those so far, each a number of samples and how often it came in a row: the committed ones,
        then those in which rows of the tap were written since. Raises StoreError where the rows of
        a resumed run cannot be put together."""
        ...

    def note(self, facts: Mapping[str, Json], /) -> None:
        """Add ``facts`` to the run's provenance."""
        ...

    def close(self, complete: bool, /) -> None:
        """Finish; ``complete`` tells whether every sample was seen. Idempotent."""
        ...


class Rows(Protocol):
    """The captured rows of one tap in a store."""

    def __len__(self) -> int: ...

    @property
    def samples(self) -> Array:
        """The number of the sample (or batch) that each row belongs to, int64."""
        ...

    def read(self, start: int, stop: int, /) -> Array | list[Array]:
        """Rows ``start`` to ``stop``: one array, or a list of arrays where shapes differ."""
        ...
