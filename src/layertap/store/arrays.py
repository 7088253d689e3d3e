"""Append rows to one Zarr array by writing its chunk files directly.

zarr-python would encode a chunk anew for every batch that does not fill it. Here a chunk is a file
of full size from the start (sparse where the file system can), and rows are written at their
place: at any instant every file is a valid chunk, whatever the sizes of the batches.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numcodecs.zstd import Zstd

from layertap.core.dtypes import Array
from layertap.core.protocols import Json
from layertap.store.layout import DOCUMENT, Layout, document, write_all, write_json
from layertap.store.opening import make_folder, open_file, opened, write_file
from layertap.store.reading import read_chunk

_CHUNK = re.compile(r"(?:c|tail)(?:\.(\d+))?(?:\.0)*")
_PARTIAL = "partial"


class OpenFiles:
    """File descriptors for writing, the least recently used closed first."""

    def __init__(self) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = 128 if soft == resource.RLIM_INFINITY else max(4, min(128, soft // 4))
        self._open: OrderedDict[str, int] = OrderedDict()

    def get(self, path: str, size: int) -> int:
        """A descriptor of the file at ``path``, created or extended to ``size`` bytes."""
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        while len(self._open) >= self._most:
            os.close(self._open.popitem(last=False)[1])
        fd = open_file(path, os.O_RDWR | os.O_CREAT)
        self._open[path] = fd
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        return fd

    def drop(self, path: str) -> None:
        """Close the file at ``path`` if it is open."""
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


class ArrayWriter:
    """Appends rows to one array; ``rows`` counts those written, committed or not.

    ``dimensions`` names the axes of a row. With ``resumed=0`` the array starts anew, whatever
    lies in the folder; otherwise that many rows are kept. Every method raises OSError as it comes.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        files: OpenFiles,
        *,
        dimensions: tuple[str, ...],
        attributes: Mapping[str, Json],
        resumed: int = 0,
    ) -> None:
        self.folder, self.layout, self.rows = folder, layout, resumed
        self._row_bytes, self._chunk_bytes = layout.row_bytes, layout.chunk_bytes
        self._latest = (-1, "")
        self._files, self._dimensions, self._attributes = files, dimensions, attributes
        self._begun = False
        self._published: dict[str, Json] = {}

    def append(self, rows: Array) -> None:
        """Add ``rows`` (n, *row_shape), or the one value of an array that is not counted, of the
        stored dtype and in C order."""
        if not self._begun:
            self._begin()
        size, chunk = self._row_bytes, self.layout.chunk_rows
        data = rows.reshape(-1).view(np.uint8) if rows.size else None
        first, end = self.rows, self.rows + (len(rows) if self.layout.counted else 1)
        while self.rows < end:
            number, at = divmod(self.rows, chunk)
            count = min(end - self.rows, chunk - at)
            start = (self.rows - first) * size
            if data is not None:
                self._write(number, at * size, data[start : start + count * size])
            self.rows += count

    def publish(self, rows: int, axis: str, *, final: bool = False) -> None:
        """Bring the array's document up to ``rows`` rows on the dimension called ``axis``.

        ``final``: nothing is appended any more, so that a lone chunk shrinks to its rows.
        """
        if not self._begun:
            self._begin()
        if final and rows < self.rows:
            self._trim(rows)
        number, over = divmod(rows, self.layout.chunk_rows)
        if not over or not self.layout.row_bytes:
            pass
        elif self.layout.level is not None:
            self._publish_tail(number, over, final)
        elif final and number == 0:
            self._shrink(rows)
        self._write_document(rows, axis, final)

    def remove(self) -> None:
        """Delete the array."""
        if self.folder.is_dir():
            self._trim(0)  # so that no open file keeps its space
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self) -> None:
        self._begun = True
        layout = self.layout
        make_folder(self.folder)
        self._trim(self.rows)
        if self.rows % layout.chunk_rows and layout.row_bytes:
            self._reopen(self.rows // layout.chunk_rows)
        # Its own dimension, not the samples': readers find no contradiction at any instant.
        self._write_document(self.rows, f"{self.folder.name}~samples", False)

    def _trim(self, rows: int) -> None:
        """Remove the chunks after the first ``rows`` rows, left by what was not committed."""
        kept = -(-rows // self.layout.chunk_rows)
        for path in list(self.folder.iterdir()):
            found = _CHUNK.fullmatch(path.name)
            if found is not None and int(found[1] or 0) >= kept:
                self._files.drop(str(path))
                path.unlink()

    def _reopen(self, number: int) -> None:
        """Make the chunk that was last when the run ended ready for more rows."""
        layout = self.layout
        chunk, tail = (self.folder / name(number) for name in (layout.chunk_name, layout.tail_name))
        if layout.level is None:
            self._files.get(str(chunk), layout.chunk_bytes)
        elif not tail.exists():
            partial = self.folder / _PARTIAL
            write_file(partial, read_chunk(self.folder, layout, number, layout.chunk_bytes))
            partial.replace(tail)

    def _write(self, number: int, offset: int, data: Array) -> None:
        if self.layout.level is None:
            if self._latest[0] != number:
                self._latest = number, f"{self.folder}/{self.layout.chunk_name(number)}"
            write_all(self._files.get(self._latest[1], self._chunk_bytes), data, offset)
            return
        if data.size == self._chunk_bytes:
            self._encode(number, data)
            return
        path = f"{self.folder}/{self.layout.tail_name(number)}"
        write_all(self._files.get(path, self._chunk_bytes), data, offset)
        if offset + data.size == self._chunk_bytes:
            self._seal(number)

    def _encode(self, number: int, data: Array) -> None:
        partial = self.folder / _PARTIAL
        write_file(partial, Zstd(level=self.layout.level).encode(data))
        partial.replace(self.folder / self.layout.chunk_name(number))

    def _seal(self, number: int) -> None:
        """Compress the raw rows of a chunk; the raw file goes once the other is in place."""
        tail = self.folder / self.layout.tail_name(number)
        self._encode(number, read_chunk(self.folder, self.layout, number, self._chunk_bytes))
        self._files.drop(str(tail))
        tail.unlink()

    def _publish_tail(self, number: int, rows: int, final: bool) -> None:
        tail = self.folder / self.layout.tail_name(number)
        if not tail.exists():
            return
        size, present = self.layout.chunk_bytes, rows * self.layout.row_bytes
        data = np.zeros(present if final and number == 0 else size, np.uint8)
        data[:present] = read_chunk(self.folder, self.layout, number, present)
        self._encode(number, data)
        if final:
            self._files.drop(str(tail))
            tail.unlink()

    def _shrink(self, rows: int) -> None:
        chunk = self.folder / self.layout.chunk_name(0)
        self._files.drop(str(chunk))
        with opened(chunk, os.O_RDWR) as fd:
            os.ftruncate(fd, rows * self.layout.row_bytes)

    def _write_document(self, rows: int, axis: str, final: bool) -> None:
        axes = (axis, *self._dimensions) if self.layout.counted else self._dimensions
        shown = document(self.layout, rows, axes, self._attributes, final=final)
        if shown != self._published:
            write_json(self.folder / DOCUMENT, shown, self.folder / _PARTIAL)
            self._published = shown
