"""How a file of a run is opened: a run may come from anywhere, so that what is called like one of
its files may be a link to another place, a pipe, or of any size."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layertap.errors import StoreError
from layertap.store.failure import damaged

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_FILE = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO}


def real_path(path: Path) -> Path:
    """Where a run is: the caller's own path may go through links. Raises StoreError."""
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:
        raise StoreError(f"{str(path)!r} is no path: {error}", hint="give another one") from error


def open_file(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the regular file at ``path``, below a :func:`real_path`. Raises OSError as
    it comes, and StoreError for anything but a file in a folder, both without links."""
    folder, name = os.path.split(path)
    try:
        at = os.open(folder, _FOLDER)
        try:
            fd = os.open(name, flags | _FILE, 0o666, dir_fd=at)
        finally:
            os.close(at)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise damaged(Path(path), "is no regular file, or lies behind a link") from error
        error.filename = str(path)
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise damaged(Path(path), "is no regular file")
    return fd


@contextmanager
def opened(path: str | Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor as :func:`open_file` gives it, closed at the end."""
    fd = open_file(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def read_file(path: Path, most: int) -> bytes:
    """All bytes of a file. Raises OSError, and StoreError also for more than ``most`` bytes."""
    with opened(path) as fd:
        size = os.fstat(fd).st_size
        if size > most:
            raise damaged(path, f"has {size:,} bytes, more than it can need")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(most)


def write_file(path: Path, data: Any) -> None:
    """Make ``data`` all that is in a file. Raises OSError and StoreError."""
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
        view = memoryview(data).cast("B")
        while len(view):
            view = view[os.write(fd, view) :]


def make_folder(path: Path) -> None:
    """Make a folder of a run where there is none yet. Raises OSError and StoreError."""
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise damaged(path, "is a link")
