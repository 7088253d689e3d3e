"""Read rows of one Zarr array from its chunk files, without trusting them.

Raw chunks are read straight into the result (one copy, no import of zarr, no mapping that outlives
the file); compressed ones are decoded by numcodecs, which zarr-python uses too.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numcodecs.zstd import Zstd

from layertap.core.dtypes import Array
from layertap.errors import StoreError
from layertap.store.failure import damaged
from layertap.store.layout import CHUNK_BYTES, Layout
from layertap.store.opening import opened, read_file


def blocks(folder: Path, layout: Layout, rows: int) -> Iterator[Array]:
    """The first ``rows`` rows of an array, a few at a time."""
    step = max(1, CHUNK_BYTES // max(1, layout.row_bytes))
    for start in range(0, rows, step):
        yield read_rows(folder, layout, start, min(rows, start + step))


def check_rows(folder: Path, layout: Layout, rows: int) -> None:
    """Raise StoreError unless the first ``rows`` rows are there; compressed ones are decoded."""
    for number in _chunks(layout, 0, rows):
        path, compressed = _find(folder, layout, number, _within(layout, number, rows))
        if compressed:
            _decoded(path, layout)


def read_rows(folder: Path, layout: Layout, start: int, stop: int) -> Array:
    """Rows ``start`` to ``stop`` as they lie on disk, (stop - start, *row_shape).

    Raises StoreError when a chunk is missing, too short or not what it should be; nothing is
    allocated before all files are known to be there.
    """
    count, size, chunk = max(0, stop - start), layout.row_bytes, layout.chunk_rows
    numbers = _chunks(layout, start, stop)
    for number in numbers:
        _find(folder, layout, number, _within(layout, number, stop))
    out = _allocated(folder, layout, count)
    data = _bytes(out)
    for number in numbers:
        first, last = max(start, number * chunk), min(stop, (number + 1) * chunk)
        part = data[(first - start) * size : (last - start) * size]
        _read(part, folder, layout, number, first - number * chunk)
    return out


def _chunks(layout: Layout, start: int, stop: int) -> range:
    """The chunks that have bytes of rows ``start`` to ``stop``."""
    there = start < stop and layout.row_bytes > 0
    rows = layout.chunk_rows
    return range(start // rows, -(-stop // rows)) if there else range(0)


def _within(layout: Layout, number: int, stop: int) -> int:
    """Rows of a chunk up to row ``stop`` of the array."""
    return min(stop - number * layout.chunk_rows, layout.chunk_rows)


def _allocated(folder: Path, layout: Layout, rows: int) -> Array:
    try:
        return np.empty((rows, *layout.row_shape), layout.dtype)
    except ValueError as error:  # empty rows with an axis too long to be true
        raise damaged(folder, f"has an impossible shape: {error}") from error
    except MemoryError as error:
        raise StoreError(
            f"{rows:,} rows of {folder.name!r} take {rows * layout.row_bytes:,} bytes, "
            "more than there is memory",
            hint="read some at a time, as in capture[:1000]",
        ) from error


def _bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)


def _find(folder: Path, layout: Layout, number: int, rows: int) -> tuple[Path, bool]:
    """The file of a chunk that must hold ``rows`` rows, and whether it is compressed."""
    packed = folder / layout.chunk_name(number)
    raw = packed if layout.level is None else folder / layout.tail_name(number)
    for path in dict.fromkeys((raw, packed)):
        try:
            found = path.lstat()
        except OSError as error:
            if path == packed:
                raise damaged(path, f"cannot be read: {error.strerror}") from error
            continue
        if not stat.S_ISREG(found.st_mode):
            raise damaged(path, "is no regular file")
        if path == raw and found.st_size < rows * layout.row_bytes:
            raise damaged(path, f"has {found.st_size:,} bytes, too few for {rows} rows")
        return path, path != raw
    raise AssertionError("unreachable: the packed file is found or raises")


def _read(part: Array, folder: Path, layout: Layout, number: int, at: int) -> None:
    """Fill ``part`` (bytes) with the rows from row ``at`` of a chunk on."""
    offset = at * layout.row_bytes
    path, compressed = _find(folder, layout, number, 0)
    if compressed:
        part[:] = _decoded(path, layout)[offset : offset + part.size]
        return
    try:
        with opened(path) as fd:
            done = 0
            while done < part.size:
                got = os.preadv(fd, [part.data[done:]], offset + done)
                if not got:
                    raise damaged(path, "is shorter than its rows")
                done += got
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror}") from error


def _decoded(path: Path, layout: Layout) -> Array:
    try:
        found = path.lstat()
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror}") from error
    return _decode(path, found.st_mtime_ns, found.st_ino, layout.chunk_bytes)


@functools.lru_cache(maxsize=1)
def _decode(path: Path, _modified: int, _inode: int, size: int) -> Array:
    """A chunk of ``size`` bytes decoded; the last one is kept for reading row by row.

    Decoding goes into a buffer of the size that the layout tells, so that a file that claims
    to hold more is refused and not unpacked. A lone chunk of a finished array may hold less.
    """
    out = np.zeros(size, np.uint8)
    try:
        Zstd().decode(read_file(path, size + size // 128 + 1024), out)  # what none compresses to
    except (OSError, ValueError, RuntimeError) as error:
        raise damaged(path, f"cannot be decoded: {error}") from error
    return out


def read_chunk(folder: Path, layout: Layout, number: int, size: int) -> Array:
    """The first ``size`` bytes of one chunk."""
    out = np.empty(size, np.uint8)
    _read(out, folder, layout, number, 0)
    return out
