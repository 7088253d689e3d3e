"""Whole files: read with one kind of error, written so that they are there whole or not at all."""

from __future__ import annotations

import os
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
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise SourceError(
            f"{str(source)!r} cannot be read: {error.strerror}", hint="check the path"
        ) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step, replacing what was there. Raises StoreError."""
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
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


def _cannot(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{str(path)!r} cannot be written: {error.strerror or error}",
        hint="choose another place, or make room",
    )


__all__ = ["read_whole", "write_whole"]
