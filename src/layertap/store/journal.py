"""The manifest of a run: what is committed, one line of JSON per commit, appended.

Each line tells everything, so that only the last one counts; one without its newline was torn by
the end of the process and does not count.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from layertap.core.protocols import Json
from layertap.errors import StoreError
from layertap.store.failure import damaged
from layertap.store.opening import open_file, opened, write_file

JOURNAL = "journal.jsonl"
LOCK = "lock"

_COMPACT_BYTES = 8 << 20
_BLOCK, _LONGEST = 64 << 10, 32 << 20
"""Bytes of the end of a journal that are looked at first, and at most."""

_MOST_RUNS = 32
"""Of batches of one size that a line tells; only a demotion after a resumption needs them."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """What is committed.

    ``rows`` has, by tap position, the rows of taps that do not simply have one per sample (or
    batch), and how they are stored: ``sparse`` (some samples have none), ``batch`` (one per batch,
    although the run's document says one per sample) and ``ragged`` (shapes differ), joined by
    spaces. ``inputs`` is the digest of everything fed so far. ``executions`` are pairs of a number
    of samples and how many batches of as many came in a row; None where nobody knows any more.
    """

    samples: int = 0
    batches: int = 0
    inputs: str = ""
    rows: Mapping[int, tuple[int, str]] = field(default_factory=dict)
    complete: bool = False
    executions: Sequence[tuple[int, int]] | None = ()

    def flags(self, position: int) -> str:
        """How the rows of the tap at ``position`` are stored."""
        return self.rows.get(position, (0, ""))[1]

    def line(self) -> bytes:
        content: dict[str, Json] = {"samples": self.samples, "batches": self.batches}
        content["inputs"] = self.inputs
        if self.executions is not None and len(self.executions) <= _MOST_RUNS:
            content["executions"] = self.executions
        if self.rows:
            content["rows"] = self.rows
        if self.complete:
            content["complete"] = True
        return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def read_state(path: Path) -> State:
    """The last committed state in the journal at ``path``; nothing, where there is no journal.

    Raises StoreError when it is damaged.
    """
    try:
        with opened(path) as fd:
            line, _ = _last_line(fd, path)
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror}") from error
    return _parse(line, path) if line else State()


def _last_line(fd: int, path: Path) -> tuple[bytes, int]:
    """The last complete line, without its newline, and where it ends in the file."""
    end = os.fstat(fd).st_size
    size = _BLOCK
    while True:
        size = min(size, end)
        lines = os.pread(fd, size, end - size).rsplit(b"\n", 2)
        if len(lines) == 3 or size == end:
            return (lines[-2], end - len(lines[-1])) if len(lines) > 1 else (b"", 0)
        if size >= _LONGEST:
            raise damaged(path, "has a line too long to be true")
        size *= 2


def _parse(line: bytes, path: Path) -> State:
    try:
        found = json.loads(line)
        rows = {int(i): (n, flags) for i, (n, flags) in found.get("rows", {}).items()}
        runs = found.get("executions")
        state = State(
            found["samples"],
            found["batches"],
            found["inputs"],
            rows,
            found.get("complete", False),
            None if runs is None else [(size, times) for size, times in runs],
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, f"has a line that cannot be understood ({error})") from error
    runs = state.executions or ()
    counts = [state.samples, state.batches, *(n for n, _ in rows.values()), *chain(*runs)]
    if not all(type(n) is int and 0 <= n < 1 << 60 for n in counts):
        raise damaged(path, "has impossible counts")
    if state.executions is not None and not _adds_up(state, runs):
        raise damaged(path, "has batches of other samples than it counts")
    if not all(isinstance(flags, str) for _, flags in rows.values()):
        raise damaged(path, "has an unknown way to store a tap")
    return state


def _adds_up(state: State, runs: Sequence[tuple[int, int]]) -> bool:
    samples = sum(size * times for size, times in runs)
    batches = sum(times for _, times in runs)
    return all(map(all, runs)) and (samples, batches) == (state.samples, state.batches)


class Journal:
    """The journal open for appending, and the lock that keeps a second writer out.

    Raises StoreError when another process, or this one, is writing the run.
    """

    def __init__(self, folder: Path, run: Path) -> None:
        self._path = folder / JOURNAL
        self._lock = open_file(folder / LOCK, os.O_RDWR | os.O_CREAT)
        self._fd = -1
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise StoreError(
                f"the run {run} is being written by another capture",
                hint="wait until it ends, or write to another path",
            ) from error
        except OSError as error:
            _log.warning("%s: this file system has no locks (%s)", run, error.strerror)

    def open(self) -> State:
        """The committed state; a torn last line is cut off."""
        state = read_state(self._path)
        self._fd = open_file(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        _, self._size = _last_line(self._fd, self._path)
        if self._size < os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, self._size)
        return state

    def append(self, state: State) -> None:
        """Commit ``state``. When this raises OSError, the journal is as it was."""
        line = state.line()
        if self._size + len(line) > _COMPACT_BYTES and self._size > 64 * len(line):
            self._compact(line)
            return
        try:
            done = os.write(self._fd, line)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        if done < len(line):
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += done

    def _compact(self, line: bytes) -> None:
        """Begin the journal anew with one line: the earlier ones no longer count."""
        partial = self._path.with_suffix(".partial")
        write_file(partial, line)
        partial.replace(self._path)
        os.close(self._fd)
        self._fd = open_file(self._path, os.O_RDWR | os.O_APPEND)
        self._size = len(line)

    def close(self) -> None:
        """Release the journal and the lock."""
        if self._fd >= 0:
            os.close(self._fd)
        os.close(self._lock)
