"""Whole files, and what is no file."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from layertap.core.files import read_whole, write_whole
from layertap.errors import SourceError, StoreError


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    write_whole(path, b"one")
    write_whole(path, b"another")
    assert path.read_bytes() == read_whole(path) == read_whole(str(path)) == b"another"
    assert read_whole(b"bytes") == b"bytes"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        write_whole(tmp_path / "folder", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.timeout(20)
def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.tflite"
    os.mkfifo(pipe)
    link = tmp_path / "link.tflite"
    link.symlink_to(pipe)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.tflite"))
        for path in (pipe, link, tmp_path / "socket.tflite", Path("/dev/zero")):
            with pytest.raises(SourceError, match="is a pipe or a device"):
                read_whole(path)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("nowhere.tflite", "No such file"),
        ("a\0b.tflite", "null byte"),
        ("/", "directory"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_what_cannot_be_read(source: str, what: str) -> None:
    with pytest.raises(SourceError, match=what) as caught:
        read_whole(source)
    assert caught.value.hint


def test_what_is_no_path_at_all() -> None:
    with pytest.raises(SourceError, match="a list is no file"):
        read_whole([])  # type: ignore[arg-type]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / "a\0b", tmp_path / "no" / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(StoreError, match="cannot be written: .+"):
            write_whole(path, b"data")


def test_more_than_there_is_memory_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.bin"
    path.touch()

    def none_left(self: Path) -> bytes:
        raise MemoryError

    monkeypatch.setattr(Path, "read_bytes", none_left)
    with pytest.raises(SourceError, match="too large"):
        read_whole(path)
