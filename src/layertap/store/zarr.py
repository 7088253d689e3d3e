"""A run on disk: a Zarr v3 group that other programs read, and a journal of what is committed.

See docs/store-format.md for the format.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from layertap.core.captures import Run
from layertap.core.dtypes import Array
from layertap.core.feeds import Feed
from layertap.core.graph import TapPoint
from layertap.core.protocols import Json
from layertap.core.rows import per_batch
from layertap.errors import StoreError
from layertap.store.arrays import ArrayWriter, OpenFiles
from layertap.store.digest import InputDigest
from layertap.store.executions import Executions
from layertap.store.failure import cannot_write, damaged
from layertap.store.journal import JOURNAL, State, read_state
from layertap.store.layout import DOCUMENT, Layout, read_json, write_json
from layertap.store.metadata import RunDocument, check_same, is_run, plain_json, read_document
from layertap.store.naming import SAMPLE, node_names
from layertap.store.opening import real_path
from layertap.store.place import claim, exists, leave
from layertap.store.reading import check_rows
from layertap.store.rows import BATCH, ZarrRows
from layertap.store.taps import TapWriter, discard

_PUBLISH_SECONDS = 1.0
_LEVEL = 1
_COMPRESSION = re.compile(r"zstd(?::(-?\d+))?")
_log = logging.getLogger(__name__)


class ZarrStore:
    """A sink that writes a run to the folder ``path``.

    ``compression`` is None, ``"zstd"`` or ``"zstd:LEVEL"`` (1 to 22). With ``resume`` an existing
    run goes on after its last committed sample; with ``overwrite`` it is replaced. Every method
    raises StoreError; what was committed is intact then.
    """

    def __init__(
        self,
        path: Path,
        taps: Sequence[TapPoint],
        provenance: Mapping[str, Json],
        *,
        compression: str | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = path = real_path(path)
        level = _level(compression)
        document = RunDocument(
            plain_json(provenance), tuple(taps), node_names(tap.name for tap in taps)
        )
        self._files = OpenFiles()
        self._digest = InputDigest()
        self._closed = self._broken = False
        self._published = time.monotonic()
        self._interval = _PUBLISH_SECONDS
        self._made_folder = not path.exists()
        try:
            self._journal = claim(path, resume=resume, overwrite=overwrite)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self._start(document, level, resume)
        except BaseException as error:
            self._journal.close()
            if isinstance(error, OSError):
                raise cannot_write(path, error) from error
            raise

    def _start(self, document: RunDocument, level: int | None, resume: bool) -> None:
        old = read_document(self.path) if is_run(self.path) else None
        self._is_new = old is None
        if old is not None:
            if not resume:
                raise exists(self.path)  # another process made it a moment ago
        else:
            (self.path / SAMPLE / JOURNAL).unlink(missing_ok=True)
        self._state = self._journal.open()
        if old is not None:
            check_same(self.path, old, document, self._state)
        self._document = document if old is None else old
        self._before: Mapping[str, int] = self._document.provenance.get("observed") or {}
        self._skipped = 0
        self._replaced: dict[str, TapWriter] = {}
        pairs = zip(document.taps, self._document.nodes, strict=True)
        runs = self._state.executions
        self._executions = None if runs is None else Executions(runs)
        self._taps: dict[str, TapWriter] = {}
        for i, (tap, node) in enumerate(pairs):
            stored = _stored(self.path, self._state, i, tap, node)
            self._taps[tap.name] = writer = TapWriter(
                self.path, stored.node, stored.tap, self._files, level
            )
            if old is not None:
                writer.resume(stored.rows, stored.flags)
                discard(self.path, stored.other_node)
        if old is None:
            write_json(self.path / DOCUMENT, self._document.content(self._state), self._partial)
        self._resumed = self._state.samples
        layout = Layout(np.dtype("<i8"), (), 1 << 19)
        self._sample = ArrayWriter(
            self.path / SAMPLE,
            layout,
            self._files,
            dimensions=(),
            attributes={},
            resumed=_numbered(self.path, self._state, layout),
        )

    @property
    def _partial(self) -> Path:
        # Not beside the group's document: zarr-python warns about unknown files in a group.
        return self.path / SAMPLE / "partial"

    @property
    def samples(self) -> int:
        return self._state.samples

    def write(self, tap: TapPoint, rows: Array) -> None:
        """Write the next rows of ``tap`` to their place on disk; they count after the commit."""
        self._guarded(lambda: self._taps[tap.name].write(rows))

    @property
    def demoted(self) -> list[str]:
        """Names of taps that have a row per batch and had one per sample."""
        return [name for name, writer in self._taps.items() if "batch" in writer.flags]

    def commit(self, samples: int, feed: Feed, executions: int = 1) -> None:
        """Everything written since the last commit belongs to ``samples`` more samples, of
        ``executions`` of as many samples each."""
        if self._skipped < self._resumed:
            raise StoreError(
                f"the run {self.path} goes on after sample {self._resumed}, "
                f"and only {self._skipped} were skipped",
                hint="skip what is committed, or start anew with overwrite",
            )
        self._guarded(lambda: self._commit(samples, feed, executions))

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do ``step``; after a failure nothing more is committed."""
        if self._broken or self._closed:
            raise StoreError(f"the run {self.path} is closed", hint="go on with resume")
        self._broken = True
        try:
            step()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._broken = False

    def _commit(self, samples: int, feed: Feed, executions: int) -> None:
        self._digest.update(samples, feed)
        old, writers = self._state, list(self._taps.values())
        first = {"sample": old.samples, "batch": old.batches, "run": 0}
        total = {"sample": old.samples + samples, "batch": old.batches + executions, "run": 1}
        rows = {}
        for i, writer in enumerate(writers):
            per = writer.tap.per
            found = writer.commit(first[per], total[per])
            if found is not None:
                rows[i] = found
        known = self._executions
        if known is not None:
            known.add(samples // executions, executions)
        runs = None if known is None else known.runs
        digest = self._digest.hexdigest()
        state = State(total["sample"], total["batch"], digest, rows, executions=runs)
        self._journal.append(state)
        self._state = state
        self._retire(writers)
        self._publish_now_and_then()

    def _retire(self, writers: Sequence[TapWriter]) -> None:
        """Delete the arrays that others have replaced, now that the journal says so."""
        for writer in writers:
            writer.remove_retired()
        while self._replaced:
            self._replaced.popitem()[1].remove()

    def skip(self, samples: int, feed: Feed) -> None:
        """The next ``samples`` samples are committed already. Raises StoreError once all of them
        are seen and ``feed`` is not what they were captured from."""
        self._digest.update(samples, feed)
        self._skipped += samples
        if self._skipped == self._resumed and self._digest.hexdigest() != self._state.inputs:
            raise StoreError(
                f"cannot resume the run {self.path}: its first {self._resumed} samples "
                "were captured from other inputs",
                hint="resume with the same inputs in the same order, or start anew with overwrite "
                "(--overwrite)",
            )

    def remember(self, observed: Mapping[str, int]) -> None:
        """Counts for the provenance, in addition to those that the run had when it was resumed;
        written with the next part of the document."""
        before = self._before
        total = {name: before.get(name, 0) + count for name, count in observed.items()}
        provenance = {**self._document.provenance, "observed": {**before, **total}}
        self._document = replace(self._document, provenance=provenance)

    def demote(self, tap: TapPoint, executions: Sequence[tuple[int, int]]) -> None:
        """Write the rows of ``tap`` anew, one per execution; that counts after the commit."""
        known = self._executions
        if known is None:
            raise StoreError(
                f"{tap.name!r} no longer has a row per sample, and the run {self.path} does not "
                "tell the batches that its first part was captured in",
                hint="capture it anew with overwrite (--overwrite)",
            )
        # The caller's are not the committed ones where a run was resumed with other batches.
        all_of_them = Executions([*known.runs, *Executions(executions).since(self.samples)])
        old = self._taps[tap.name]

        def move() -> None:
            self._taps[tap.name] = old.demoted(tap, all_of_them, self.samples)
            self._replaced[tap.name] = old

        self._guarded(move)

    def note(self, facts: Mapping[str, Json]) -> None:
        """Facts for the provenance; written with the next part of the document."""
        notes = {**self._document.notes, **plain_json(facts)}
        self._document = replace(self._document, notes=notes)

    def close(self, complete: bool) -> None:
        """Finish the run. Raises StoreError when ``complete`` and the end cannot be written, or
        the input had fewer samples than the resumed run."""
        if self._closed:
            return
        self._closed = True
        try:
            if complete and not self._broken:
                self._finish()
            elif self._state.batches and not self._state.complete:
                self._publish(final=True)
            elif self._is_new and not self._state.batches and not complete:
                leave(self.path, made=self._made_folder)
        except OSError as error:
            if complete:
                raise cannot_write(self.path, error) from error
            # What made the run end matters more; the journal has everything.
            _log.warning("%s: the arrays' shapes are out of date: %s", self.path, error)
        finally:
            self._files.close()
            self._journal.close()

    def _finish(self) -> None:
        if self._skipped < self._resumed:
            raise StoreError(
                f"the input ended after {self._skipped} samples, the run {self.path} holds "
                f"{self._resumed} already",
                hint="resume with the same input, or start anew with overwrite (--overwrite)",
            )
        if self._state.complete:
            return
        self._state = replace(self._state, complete=True)
        self._publish(final=True)
        self._journal.append(self._state)

    def _publish_now_and_then(self) -> None:
        """Let other programs see what is committed: about once a second, less often where that
        would take more than a hundredth of the time."""
        now = time.monotonic()
        if now - self._published < self._interval:
            return
        self._publish()
        self._published = time.monotonic()
        self._interval = max(_PUBLISH_SECONDS, 100 * (self._published - now))

    def _publish(self, *, final: bool = False) -> None:
        state, sample = self._state, self._sample
        while sample.rows < state.samples:
            stop = min(state.samples, sample.rows + sample.layout.chunk_rows)
            sample.append(np.arange(sample.rows, stop, dtype="<i8"))
        sample.publish(state.samples, SAMPLE, final=final)
        # What is to replace another array is not committed.
        for writer in {**self._taps, **self._replaced}.values():
            writer.publish(_expected(state, writer.tap), final=final)
        write_json(self.path / DOCUMENT, self._document.content(state), self._partial)


def load_run(path: Path) -> Run:
    """The run at ``path``, complete or not, also while it is being written; captures are read
    when they are asked for, and nothing is modified. Raises StoreError."""
    root = real_path(path)
    document = read_document(root)
    state = read_state(root / SAMPLE / JOURNAL)
    pairs = zip(document.taps, document.nodes, strict=True)
    stored = [_stored(root, state, i, tap, node) for i, (tap, node) in enumerate(pairs)]
    rows = [(s.tap, ZarrRows(root, s.node, s.tap, s.rows, s.flags)) for s in stored]
    facts = {**document.provenance, **document.notes, "inputs": {"sha256": state.inputs or None}}
    demoted = [one.tap.name for one in stored if "batch" in one.flags]
    if demoted:
        facts["demoted"] = demoted  # the document may be older than the journal
    return Run(rows, facts, samples=state.samples, complete=state.complete, path=path)


def _numbered(path: Path, state: State, layout: Layout) -> int:
    """Samples that the coordinate array numbers already; nothing else depends on it."""
    try:
        (shape,) = read_json(path / SAMPLE / DOCUMENT)["shape"]
        rows = min(int(shape), state.samples)
        check_rows(path / SAMPLE, layout, rows)
    except (StoreError, KeyError, ValueError, TypeError):
        return 0
    return rows


def _expected(state: State, tap: TapPoint) -> int:
    """Rows of a tap that every batch has brought."""
    return {"sample": state.samples, "batch": state.batches, "run": min(1, state.batches)}[tap.per]


class _Stored(NamedTuple):
    """How the committed rows of a tap are stored; ``other_node`` is the name of arrays that would
    not be committed."""

    tap: TapPoint
    node: str
    other_node: str
    rows: int
    flags: str


def _stored(path: Path, state: State, position: int, tap: TapPoint, node: str) -> _Stored:
    rows, flags = state.rows.get(position, (None, ""))
    other = f"{node}{BATCH}"
    if "batch" in flags.split():
        tap, node, other = per_batch(tap), other, node
    expected = _expected(state, tap)
    rows = expected if rows is None else rows
    if rows > expected or not set(flags.split()) <= {"sparse", "ragged", "batch"}:
        raise damaged(path / SAMPLE / JOURNAL, f"has impossible rows for {tap.name!r}")
    return _Stored(tap, node, other, rows, flags)


def _level(compression: str | None) -> int | None:
    if compression is None:
        return None
    found = _COMPRESSION.fullmatch(compression)
    level = _LEVEL if found is None or found[1] is None else int(found[1])
    if found is None or not 1 <= level <= 22:
        raise StoreError(
            f"there is no compression {compression!r}",
            hint="it is zstd, or zstd:LEVEL with a level from 1 to 22",
        )
    return level
