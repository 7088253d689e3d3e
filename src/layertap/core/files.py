"""Whole files: read with one kind of error, written so that they are there whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from layertap.errors import SourceError, StoreError


def read_whole(source: str | Path | bytes) -> bytes:
    """The bytes of a file, or ``source`` itself if it is the bytes. Raises SourceError."""
    if isinstance(source, bytes):
        return source
    if not isinstance(source, str | Path):
        raise SourceError(
            f"a {type(source).__name__} is no file", hint="pass the path of a file, or its bytes"
        )
    path = Path(source)
    try:
        check_ends(path)
        return path.read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        raise SourceError(
            f"{str(source)!r} cannot be read: {_reason(error)}", hint="check the path"
        ) from error


def check_ends(path: Path) -> None:
    """Raise SourceError for a pipe, a socket or a device, which may never end. OSError for what is
    not there, ValueError for what is no path."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise SourceError(
            f"{str(path)!r} is a pipe or a device", hint="give the path of a file that is on disk"
        )


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step, replacing what was there. Raises StoreError."""
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except (OSError, ValueError) as error:
        raise _cannot(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # What the temporary file lacks: the permissions of any other new file.
        mask = os.umask(0)
        os.umask(mask)
        Path(partial).chmod(0o666 & ~mask)
        Path(partial).replace(path)
    except OSError as error:
        raise _cannot(path, error) from error
    finally:
        Path(partial).unlink(missing_ok=True)


def _cannot(path: Path, error: OSError | ValueError) -> StoreError:
    return StoreError(
        f"{str(path)!r} cannot be written: {_reason(error)}",
        hint="choose another place, or make room",
    )


def _reason(error: Exception) -> str:
    """What the system says, or Python of a path with a NUL in it or of too large a file."""
    return getattr(error, "strerror", None) or str(error) or "it is too large"


__all__ = ["check_ends", "read_whole", "write_whole"]
