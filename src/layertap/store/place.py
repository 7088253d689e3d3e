"""The folder that a run is written to: claimed, emptied, left as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

from layertap.errors import StoreError
from layertap.store.journal import JOURNAL, LOCK, Journal
from layertap.store.layout import DOCUMENT
from layertap.store.metadata import is_run
from layertap.store.naming import SAMPLE
from layertap.store.opening import make_folder, real_path


def check_place(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Raise StoreError where a run cannot be written to ``path`` as asked; nothing is changed."""
    if resume and overwrite:
        raise StoreError("a run is either resumed or overwritten", hint="ask for one of them")
    path = real_path(path)
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file, not a folder", hint="choose another path")
    if path.is_dir() and any(path.iterdir()):
        if not _is_ours(path):
            raise StoreError(
                f"{path} holds files that are no run of layertap", hint="choose another path"
            )
        if not (resume or overwrite):
            raise exists(path)


def claim(path: Path, *, resume: bool, overwrite: bool) -> Journal:
    """The locked journal of the folder ``path``, made, found or emptied as asked. Raises OSError
    and StoreError."""
    check_place(path, resume=resume, overwrite=overwrite)
    make_folder(path / SAMPLE)
    journal = Journal(path / SAMPLE, path)
    try:
        if overwrite:
            _empty(path)
    except BaseException:
        journal.close()
        raise
    return journal


def leave(path: Path, *, made: bool) -> None:
    """Remove a run of which nothing is committed, and its folder where the run ``made`` it. The
    caller holds the lock. Raises OSError and StoreError."""
    _empty(path)
    shutil.rmtree(path / SAMPLE)
    if made:
        path.rmdir()


def exists(path: Path) -> StoreError:
    """The error for a run that is in the way."""
    return StoreError(
        f"there is a run at {path} already",
        hint="go on with resume (--resume), replace it with overwrite (--overwrite), or choose "
        "another path",
    )


def _is_ours(path: Path) -> bool:
    """Whether the folder is a run, or the beginning of one whose writer was killed."""
    if is_run(path):
        return True
    only = path / SAMPLE
    if [entry.name for entry in path.iterdir()] != [SAMPLE] or not _is_folder(only):
        return False
    return _is_bare(only) or (only / LOCK).exists()


def _empty(path: Path) -> None:
    """Remove a run's arrays, journal and document, in an order that leaves a run at any time.

    Raises StoreError, before anything is removed, when the folder holds anything else.
    """
    entries = [entry for entry in path.iterdir() if entry.name != DOCUMENT]
    for entry in entries:
        known = entry.name == SAMPLE or (entry / DOCUMENT).exists()
        if not _is_folder(entry) or not (known or _is_bare(entry)):
            raise StoreError(
                f"{path} holds {entry.name!r}, which is not of the run",
                hint="move it away, or choose another path",
            )
    (path / SAMPLE / JOURNAL).unlink(missing_ok=True)
    for entry in entries:
        if entry.name != SAMPLE:
            shutil.rmtree(entry)
    (path / DOCUMENT).unlink(missing_ok=True)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_bare(folder: Path) -> bool:
    return not any(folder.iterdir())
