"""A folder of generated files: written whole, and what others wrote there is left alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from layertap.errors import StoreError

RECORD = "layertap-firmware.json"
"""The file that remembers what was generated: paths and their SHA-256."""


@dataclass(frozen=True, slots=True)
class Written:
    """Paths relative to the folder, sorted: new or changed files, files that were as they should
    be, the user's own that were left as they are, and files that an earlier run made and that are
    no longer part of it."""

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    left: tuple[str, ...]
    removed: tuple[str, ...]


def write_folder(
    folder: Path,
    made: Mapping[str, bytes],
    *,
    is_yours: Callable[[str], bool],
    overwrite: bool = False,
) -> Written:
    """Put the files ``made`` into ``folder``, and take away what an earlier run had put there.

    A folder that this has not made must be empty, and files must not have been changed since:
    StoreError says which, unless ``overwrite``. Files that ``is_yours`` names are there to be
    changed; those that were are left as they are, in any case. Nothing is written before everything
    is ready to be moved into its place. Raises StoreError where it cannot be written.
    """
    try:
        known = _known(folder)
        if not overwrite:
            _check(folder, made, known, is_yours)
        same = {path for path, data in made.items() if _read(folder / path) == data}
        left = {
            path
            for path, digest in known.items()
            if is_yours(path)
            and path not in same
            and _digest_of(folder / path) not in (None, digest)
        }
        gone = {
            path
            for path, digest in known.items()
            if path not in made and _digest_of(folder / path) == digest
        }
        new = {path: data for path, data in made.items() if path not in same | left}
        _move_in(folder, {**new, RECORD: _record(made)})
        for path in gone:
            _remove(folder, path)
    except OSError as error:
        raise StoreError(
            f"{error.filename or folder}: {error.strerror or error}",
            hint="choose another folder, or make room",
        ) from error
    return Written(*(tuple(sorted(paths)) for paths in (new, same, left, gone)))


def _known(folder: Path) -> dict[str, str]:
    """What an earlier run put there; nothing where there is no record, or an unreadable one."""
    data = _read(folder / RECORD)
    try:
        files = json.loads(data or b"{}").get("files", {})
    except (ValueError, AttributeError):
        return {}
    if not isinstance(files, dict):
        return {}
    return {
        path: digest
        for path, digest in files.items()
        if isinstance(digest, str) and _is_inside(path)
    }


def _is_inside(path: str) -> bool:
    """Whether a path of a record, which anybody may have written, stays in the folder."""
    return not Path(path).is_absolute() and ".." not in Path(path).parts


def _check(
    folder: Path,
    made: Mapping[str, bytes],
    known: Mapping[str, str],
    is_yours: Callable[[str], bool],
) -> None:
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{str(folder)!r} is no folder", hint="choose another place")
    if not known and folder.is_dir() and any(folder.iterdir()):
        strange = min(entry.name for entry in folder.iterdir())
        raise StoreError(
            f"{str(folder)!r} holds files that layertap did not write, {strange!r} among them",
            hint="choose an empty folder; --overwrite writes into it, over files of these names",
        )
    for path in sorted(path for path in {*made, *known} if not is_yours(path)):
        found = _digest_of(folder / path)
        if found not in (None, known.get(path), _digest(made.get(path, b""))):
            raise StoreError(
                f"{str(folder / path)!r} was changed since it was generated",
                hint="keep your changes under another name; --overwrite gives them up",
            )


def _record(made: Mapping[str, bytes]) -> bytes:
    files = {path: _digest(data) for path, data in sorted(made.items())}
    return (json.dumps({"files": files}, indent=1) + "\n").encode()


def _move_in(folder: Path, new: Mapping[str, bytes]) -> None:
    """All files are written under other names first, so that a full disk changes nothing."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    waiting = Path(tempfile.mkdtemp(prefix=".layertap-", dir=folder))
    try:
        for path, data in new.items():
            (waiting / path).parent.mkdir(parents=True, exist_ok=True)
            (waiting / path).write_bytes(data)
        for path in new:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (waiting / path).replace(folder / path)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _remove(folder: Path, path: str) -> None:
    (folder / path).unlink()
    for parent in _parents(path):
        if any((folder / parent).iterdir()):
            break
        (folder / parent).rmdir()


def _parents(path: str) -> Iterator[Path]:
    return (parent for parent in Path(path).parents if parent != Path())


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _digest_of(path: Path) -> str | None:
    data = _read(path)
    return None if data is None else _digest(data)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


__all__ = ["RECORD", "Written", "write_folder"]
