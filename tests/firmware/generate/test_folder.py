"""A folder of generated files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layertap.errors import StoreError
from layertap.firmware.generate.folder import RECORD, Written, write_folder

MADE = {"a.h": b"one", "src/b.cpp": b"two", "src/port.cpp": b"three"}


def write(folder: Path, made: dict[str, bytes] = MADE, *, overwrite: bool = False) -> Written:
    return write_folder(
        folder, made, is_yours=lambda path: path.endswith("port.cpp"), overwrite=overwrite
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "new" / "firmware"


def test_a_new_folder(folder: Path) -> None:
    done = write(folder)
    assert done == Written(tuple(MADE), (), (), ())
    found = contents(folder)
    record = json.loads(found.pop(RECORD))
    assert found == MADE
    assert list(record["files"]) == list(MADE)


def test_again_nothing_is_written(folder: Path) -> None:
    write(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.h")}
    assert write(folder) == Written((), tuple(MADE), (), ())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.h")} == before


def test_what_is_made_no_longer_goes(folder: Path) -> None:
    write(folder)
    (folder / "mine.txt").write_text("mine")
    done = write(folder, {"a.h": b"new"})
    assert done == Written(("a.h",), (), (), ("src/b.cpp", "src/port.cpp"))
    assert set(contents(folder)) == {"a.h", "mine.txt", RECORD}
    assert not (folder / "src").exists()


def test_other_peoples_folders_are_refused(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "a.h").write_text("mine")
    with pytest.raises(StoreError, match=r"did not write, 'a\.h'") as caught:
        write(folder)
    assert "--overwrite" in caught.value.hint
    assert contents(folder) == {"a.h": b"mine"}
    assert write(folder, overwrite=True).written == tuple(MADE)
    assert contents(folder)["a.h"] == b"one"


def test_an_empty_folder_will_do(folder: Path) -> None:
    folder.mkdir(parents=True)
    assert write(folder).written == tuple(MADE)


def test_changed_files_are_not_written_over(folder: Path) -> None:
    write(folder)
    (folder / "src/b.cpp").write_text("better")
    with pytest.raises(StoreError, match=r"b\.cpp' was changed since it was generated"):
        write(folder, {**MADE, "a.h": b"new"})
    assert contents(folder)["a.h"] == b"one"
    write(folder, {**MADE, "a.h": b"new"}, overwrite=True)
    assert contents(folder)["src/b.cpp"] == b"two"


def test_your_own_files_stay_once_changed(folder: Path) -> None:
    write(folder)
    assert write(folder, {**MADE, "src/port.cpp": b"four"}).written == ("src/port.cpp",)
    (folder / "src/port.cpp").write_text("mine")
    for overwrite in (False, True):
        done = write(folder, {**MADE, "src/port.cpp": b"five"}, overwrite=overwrite)
        assert done.left == ("src/port.cpp",)
        assert contents(folder)["src/port.cpp"] == b"mine"


def test_a_file_that_was_deleted_comes_back(folder: Path) -> None:
    write(folder)
    (folder / "src/port.cpp").unlink()
    assert write(folder).written == ("src/port.cpp",)


def test_a_disk_that_fills_changes_nothing(folder: Path, monkeypatch) -> None:
    write(folder)
    before = contents(folder)
    whole = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "b.cpp":
            raise OSError(28, "No space left on device", str(path))
        return whole(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="No space left"):
        write(folder, dict.fromkeys(MADE, b"new"))
    assert contents(folder) == before


def test_a_new_folder_does_not_stay_empty(folder: Path, monkeypatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="No space left"):
        write(folder)
    assert not folder.exists()


def test_a_file_in_the_place_of_the_folder(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("a file")
    with pytest.raises(StoreError, match="is no folder"):
        write(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"files": 3}', '{"files": {"../victim": "0"}}'])
def test_a_record_that_somebody_broke_lets_nothing_be_removed(folder: Path, text: str) -> None:
    victim = folder.parent / "victim"
    folder.mkdir(parents=True)
    victim.write_bytes(b"")
    (folder / RECORD).write_text(text)
    with pytest.raises(StoreError, match="did not write"):
        write(folder)
    write(folder, overwrite=True)
    assert victim.exists()
