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
from layertap.store.failure import damaged
from layertap.store.layout import CHUNK_BYTES, Layout


def blocks(folder: Path, layout: Layout, rows: int) -> Iterator[Array]:
    """The first ``rows`` rows of an array, a few at a time."""
    step = max(1, CHUNK_BYTES // max(1, layout.row_bytes))
    for start in range(0, rows, step):
        yield read_rows(folder, layout, start, min(rows, start + step))


def read_rows(folder: Path, layout: Layout, start: int, stop: int) -> Array:
    """Rows ``start`` to ``stop`` as they lie on disk, (stop - start, *row_shape).

    Raises StoreError when a chunk is missing, too short or not what it should be; nothing is
    allocated before all files are known to be there.
    """
    count, size, chunk = max(0, stop - start), layout.row_bytes, layout.chunk_rows
    numbers = range(start // chunk, -(-stop // chunk)) if count and size else range(0)
    for number in numbers:
        _find(folder, layout, number, min(stop - number * chunk, chunk))
    try:
        out = np.empty((count, *layout.row_shape), layout.dtype)
    except ValueError as error:  # empty rows with an axis too long to be true
        raise damaged(folder, f"has an impossible shape: {error}") from error
    data = _bytes(out)
    for number in numbers:
        first, last = max(start, number * chunk), min(stop, (number + 1) * chunk)
        part = data[(first - start) * size : (last - start) * size]
        _read(part, folder, layout, number, first - number * chunk)
    return out


def _bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)


def _find(folder: Path, layout: Layout, number: int, rows: int) -> tuple[Path, bool]:
    """The file of a chunk that must hold ``rows`` rows, and whether it is compressed."""
    packed = folder / layout.chunk_name(number)
    raw = packed if layout.level is None else folder / layout.tail_name(number)
    for path in dict.fromkeys((raw, packed)):
        try:
            found = path.stat()
        except OSError as error:
            if path == packed:
                raise damaged(path, f"cannot be read: {error.strerror}") from error
            continue
        if not stat.S_ISREG(found.st_mode):
            raise damaged(path, "is not a regular file")
        if path == raw and found.st_size < rows * layout.row_bytes:
            raise damaged(path, f"has {found.st_size:,} bytes, too few for {rows} rows")
        return path, path != raw
    raise AssertionError("unreachable: the packed file is found or raises")


def _read(part: Array, folder: Path, layout: Layout, number: int, at: int) -> None:
    """Fill ``part`` (bytes) with the rows from row ``at`` of a chunk on."""
    offset = at * layout.row_bytes
    path, compressed = _find(folder, layout, number, 0)
    if compressed:
        found = path.stat()
        chunk = _decode(path, found.st_mtime_ns, found.st_ino, layout.chunk_bytes)
        part[:] = chunk[offset : offset + part.size]
        return
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            done = 0
            while done < part.size:
                got = os.preadv(fd, [part.data[done:]], offset + done)
                if not got:
                    raise damaged(path, "is shorter than its rows")
                done += got
        finally:
            os.close(fd)
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=1)
def _decode(path: Path, _modified: int, _inode: int, size: int) -> Array:
    """A chunk of ``size`` bytes decoded; the last one is kept for reading row by row.

    Decoding goes into a buffer of the size that the layout tells, so that a file that claims
    to hold more is refused and not unpacked. A lone chunk of a finished array may hold less.
    """
    out = np.zeros(size, np.uint8)
    try:
        Zstd().decode(path.read_bytes(), out)
    except (OSError, ValueError, RuntimeError) as error:
        raise damaged(path, f"cannot be decoded: {error}") from error
    return out


def read_chunk(folder: Path, layout: Layout, number: int) -> Array:
    """All bytes of one compressed chunk."""
    out = np.empty(layout.chunk_bytes, np.uint8)
    _read(out, folder, layout, number, 0)
    return out
