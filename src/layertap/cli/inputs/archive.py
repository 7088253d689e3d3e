"""``.npz`` archives: arrays that are unpacked sample by sample, after a look at what they say of
themselves. A small file may unpack to any size."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from layertap.cli.inputs.given import Scaling
from layertap.core.dtypes import Array
from layertap.core.messages import brief
from layertap.core.units import format_bytes
from layertap.errors import FeedError

LARGEST = 1 << 30
"""Bytes that are unpacked at once."""

_HEADER = 1 << 16
"""Bytes of a member within which its header ends; NumPy's are one or two hundred long."""

_DAMAGE = (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged, encrypted or foreign archive raises."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, slots=True)
class Member:
    """One array of an archive, before it is unpacked. ``start`` is where its numbers begin."""

    path: Path
    info: zipfile.ZipInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def whole(self) -> Array:
        """The array. Raises FeedError where it is larger than is unpacked at once."""
        self.check_size(self.nbytes, "")
        return (
            self.parts()
            .read(0, self.nbytes)
            .reshape(self.shape, order="F" if self.fortran else "C")
        )

    def parts(self) -> Unpacking:
        return Unpacking(self)

    def check_size(self, wanted: int, hint: str) -> None:
        """Raise FeedError where ``wanted`` bytes are more than is unpacked at once."""
        if wanted > LARGEST:
            raise FeedError(
                f"{self.path}: {self.info.filename} unpacks to {format_bytes(wanted)} at once, "
                f"more than {format_bytes(LARGEST)}",
                hint=f"{hint}unpack the file: a .npy of any size is read where it lies",
            )


def arrays_of(path: Path) -> dict[str, zipfile.ZipInfo]:
    """The arrays that the archive at ``path`` says it has, by name. Raises FeedError."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    except _DAMAGE as error:
        raise unreadable(path, error) from error
    return {info.filename[:-4]: info for info in found}


def member(path: Path, info: zipfile.ZipInfo) -> Member:
    """One array of the archive at ``path``; only its header is unpacked. Raises FeedError."""
    try:
        if info.compress_type not in _METHODS:
            raise ValueError(f"{info.filename} is packed in a way that NumPy does not use")
        with zipfile.ZipFile(path) as archive, archive.open(info) as stream:
            shape, fortran, dtype, start = read_header(stream)
        found = Member(path, info, dtype, shape, fortran, start)
        if info.file_size != start + found.nbytes:
            raise ValueError(
                f"{info.filename} says that it holds {found.nbytes:,} bytes of numbers, "
                f"{info.file_size - start:,} are there"
            )
    except _DAMAGE as error:
        raise unreadable(path, error) from error
    return found


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order and dtype that a ``.npy`` says it has, and where its numbers begin. Raises
    ValueError for what is none, and for Python objects."""
    head = io.BytesIO(stream.read(_HEADER))
    version = npy.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"the version {version} of the .npy format is unknown")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, fortran, dtype = read(head)
    except Exception as error:  # the header is Python's syntax, and damage to it raises anything
        raise ValueError(f"its header is damaged: {brief(error)}") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, fortran, dtype, head.tell()


class Unpacking:
    """The bytes of a member's numbers, forwards at the cost of unpacking them once; backwards from
    the beginning again."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._stream: IO[bytes] | None = None

    def read(self, start: int, stop: int) -> Array:
        """The numbers in the bytes ``start`` to ``stop``. Raises FeedError."""
        member = self._member
        try:
            if self._stream is None:
                with zipfile.ZipFile(member.path) as archive:
                    self._stream = archive.open(member.info)
            if self._stream.tell() != member.start + start:
                self._stream.seek(member.start + start)
            data = self._stream.read(stop - start)
        except _DAMAGE as error:
            raise unreadable(member.path, error) from error
        if len(data) != stop - start:
            raise unreadable(member.path, EOFError())
        return np.frombuffer(data, member.dtype)


class MemberStack:
    """The samples of a member on axis 0; ``single`` where the whole of it is one sample."""

    def __init__(self, member: Member, scaling: Scaling, *, single: bool) -> None:
        self._member, self._scaling, self._parts = member, scaling, member.parts()
        self._shape = (1, *member.shape) if single else member.shape
        self._row = math.prod(self._shape[1:]) * member.dtype.itemsize

    def __len__(self) -> int:
        return self._shape[0]

    def read(self, start: int, stop: int) -> Array:
        fit = LARGEST // max(1, self._row)
        hint = f"--batch-size {fit}, or " if fit else ""
        self._member.check_size((stop - start) * self._row, hint)
        numbers = self._parts.read(start * self._row, stop * self._row)
        return self._scaling(numbers.reshape(stop - start, *self._shape[1:]))


def unreadable(path: Path, error: Exception) -> FeedError:
    """The error for a file that is not what its name says."""
    return FeedError(
        f"cannot read {path}: {str(error) or 'it ends early'}",
        hint="inputs are plain data: pickled objects are not loaded",
    )


__all__ = [
    "LARGEST",
    "Member",
    "MemberStack",
    "arrays_of",
    "member",
    "read_header",
    "unreadable",
]
