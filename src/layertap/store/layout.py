"""One Zarr v3 array on disk: its document (``zarr.json``), its chunks and where rows lie in them.

Format: https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layertap.core.protocols import Json
from layertap.errors import StoreError
from layertap.store.elements import NATIVE
from layertap.store.failure import damaged
from layertap.store.opening import read_file, write_file

CHUNK_BYTES = 16 << 20
"""A raw chunk holds about this much, or the rows of the first write where they are more.
Files of 4 MiB took up to twice the time of a single file on ext4, files of 16 MiB 1.2 times."""

PACKED_CHUNK_BYTES = 4 << 20
"""The same for a chunk to be compressed: it is decoded whole for any of its rows."""

MOST_CHUNK_BYTES = 64 << 20
"""No chunk is larger, unless one row is: other readers read whole chunks."""

LARGEST_PACKED = 1 << 31
"""Compressed chunks are smaller than this: Zstandard's binding takes no more at once."""

DOCUMENT = "zarr.json"
_DOCUMENT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array's rows are laid out.

    ``dtype`` is what lies on disk. A chunk holds ``chunk_rows`` whole rows of ``row_shape``.
    ``counted`` is False for an array without an axis of rows (one value per run). ``level`` is
    the Zstandard level, None where chunks are raw bytes.
    """

    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    chunk_rows: int
    counted: bool = True
    level: int | None = None

    @property
    def row_bytes(self) -> int:
        return math.prod(self.row_shape) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        return self.row_bytes * self.chunk_rows

    def chunk_name(self, number: int) -> str:
        """File name of a chunk: the default key encoding with ``.``, so that no folders nest."""
        return ".".join(["c", *([str(number)] * self.counted), *("0" * len(self.row_shape))])

    def tail_name(self, number: int) -> str:
        """File name of the raw rows of a chunk that is not compressed yet."""
        return f"tail.{number}"


def chunk_rows(rows: int, row_bytes: int, *, packed: bool) -> int:
    """Rows of a chunk of an array whose first write brings ``rows`` rows."""
    if not row_bytes:
        return max(1, rows)
    usual = PACKED_CHUNK_BYTES if packed else CHUNK_BYTES
    most = max(1, MOST_CHUNK_BYTES // row_bytes)
    return max(1, min(most, max(rows, usual // row_bytes)))


def document(
    layout: Layout,
    rows: int,
    dimensions: tuple[str, ...],
    attributes: Mapping[str, Json],
    *,
    final: bool = False,
) -> dict[str, Json]:
    """The ``zarr.json`` of an array of ``rows`` rows.

    In a finished array the first chunk has just the array's rows if they do not fill it;
    the attribute ``chunk_rows`` keeps the number to go on with.
    """
    shrunk = final and 0 < rows < layout.chunk_rows
    count, chunk = [rows], [rows if shrunk else layout.chunk_rows]
    codecs: list[Json] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if layout.level is not None:
        options = {"level": layout.level, "checksum": False}
        codecs.append({"name": "zstd", "configuration": options})
    sizes = [max(1, size) for size in layout.row_shape]
    grid = {"chunk_shape": [*chunk, *sizes] if layout.counted else sizes}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [*(count if layout.counted else ()), *layout.row_shape],
        "data_type": layout.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": grid},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": _zero(layout.dtype),
        "codecs": codecs,
        "attributes": {**attributes, "chunk_rows": layout.chunk_rows},
        "dimension_names": list(dimensions),
        "storage_transformers": [],
    }


def _zero(dtype: np.dtype[Any]) -> Json:
    zeros: dict[str, Json] = {"b": False, "f": 0.0, "c": [0.0, 0.0]}
    return zeros.get(dtype.kind, 0)


def parse_document(path: Path, found: Mapping[str, Json], *, counted: bool) -> Layout:
    """The layout that an array's document describes. Raises StoreError for one that is not as
    :func:`document` writes it: a run may come from anywhere."""
    try:
        dtype, shape = found["data_type"], found["shape"]
        attributes, codecs = found["attributes"], found["codecs"]
        rows_per_chunk = attributes["chunk_rows"]
        level = codecs[1]["configuration"]["level"] if len(codecs) > 1 else None
        named = [codec["name"] for codec in codecs]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise damaged(path, f"lacks {error}") from error
    sizes = [*shape, rows_per_chunk, level or 0] if isinstance(shape, list) else [-1]
    if not all(type(size) is int and 0 <= size < 1 << 60 for size in sizes):
        raise damaged(path, "holds impossible sizes")
    known = isinstance(dtype, str) and dtype in NATIVE
    if not known or named not in (["bytes"], ["bytes", "zstd"]) or rows_per_chunk < 1:
        raise damaged(path, f"has a data type {dtype!r} or codecs {named} of another program")
    if counted and not shape:
        raise damaged(path, "has no axis of rows")
    row_shape = tuple(shape[1:] if counted else shape)
    stored = np.dtype(str(dtype)).newbyteorder("<")
    layout = Layout(stored, row_shape, rows_per_chunk, counted, level)
    if level is not None and layout.chunk_bytes >= LARGEST_PACKED:
        raise damaged(path, "has compressed chunks larger than any")
    return layout


def read_json(path: Path) -> dict[str, Json]:
    """The JSON object in a file. Raises StoreError when it is missing or is none."""
    try:
        found = json.loads(read_file(path, _DOCUMENT_BYTES))
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise damaged(path, "is not a JSON object")
    return found


def write_json(path: Path, content: Mapping[str, Json], partial: Path) -> None:
    """Replace ``path`` in one step, by way of the file ``partial`` beside or below it."""
    try:
        text = json.dumps(content, allow_nan=False)
    except ValueError as error:
        raise StoreError(
            f"{path} cannot hold a value that JSON lacks: {error}", hint="pass finite numbers"
        ) from error
    write_file(partial, text.encode())
    partial.replace(path)


def write_all(fd: int, data: Any, offset: int) -> None:
    """Write the bytes of an array at ``offset``; the system may take them in pieces."""
    view = memoryview(data)
    while len(view):
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
