"""A run from elsewhere is data: nothing in it is followed, waited for or believed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from layertap.errors import StoreError
from layertap.store.opening import open_file, opened, read_file, real_path, write_file
from layertap.store.zarr import ZarrStore, load_run
from layertap.testing.store import feed_of, make_tap

TAP, OTHER = make_tap("t"), make_tap("sparse")
COMPRESSION = pytest.mark.parametrize("compression", [None, "zstd"])


def fill(path: Path, stop: int, *, complete: bool, compression: str | None = None) -> None:
    """Go on to ``stop`` batches of two samples; every other one has a row of the sparse tap."""
    store = ZarrStore(path, [TAP, OTHER], {}, compression=compression, resume=True)
    if store.samples:
        store.skip(store.samples, feed_of(0, store.samples))
    for number in range(store.samples // 2, stop):
        store.write(TAP, np.full((2, 3), 1 + number, np.float32))
        if number % 2:
            store.write(OTHER, np.full((2, 2), 1 + number, np.float32))
        store.commit(2, feed_of(2 * number, 2))
    store.close(complete)


FILES = ("t/zarr.json", "t/c.0.0", "sparse~samples/zarr.json", "sparse~samples/c.0", "sparse/c.0.0")


@COMPRESSION
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["deleted", "cut", "emptied"])
def test_a_damaged_run_is_not_gone_on_with(
    tmp_path: Path, compression: str | None, name: str, damage: str
) -> None:
    path = tmp_path / "run"
    fill(path, 4, complete=False, compression=compression)
    file = path / name
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-3] if damage == "cut" else b"")
    before = {one: one.read_bytes() for one in path.rglob("*") if one.is_file()}
    with pytest.raises(StoreError, match="damaged.*--overwrite"):
        fill(path, 6, complete=True, compression=compression)
    assert {one: one.read_bytes() for one in path.rglob("*") if one.is_file()} == before
    assert not load_run(path).complete


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_the_numbers_of_the_samples_are_made_again(tmp_path: Path, damage: str) -> None:
    """They follow from the journal."""
    fill(tmp_path, 4, complete=False)
    file = tmp_path / "sample" / "c.0"
    file.write_bytes(b"") if damage == "cut" else file.unlink()
    fill(tmp_path, 5, complete=True)
    assert np.fromfile(file, "<i8").tolist() == list(range(10))


EVERY = (*FILES, "zarr.json", "sample/journal.jsonl", "sample/zarr.json", "sample/c.0")
WRITTEN = (*EVERY, "sample/lock", "sample/partial", "t/partial", "t/tail.0")


def kept(folder: Path) -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


@COMPRESSION
@pytest.mark.parametrize("name", WRITTEN)
def test_no_link_in_a_run_is_followed(tmp_path: Path, compression: str | None, name: str) -> None:
    """Neither for reading nor for writing, deleting or cutting what is elsewhere."""
    path, victims = tmp_path / "run", tmp_path / "victims"
    fill(path, 4, complete=False, compression=compression)
    victims.mkdir()
    file, victim = path / name, victims / "victim"
    victim.write_bytes(file.read_bytes() if file.exists() else bytes(100))
    file.unlink(missing_ok=True)
    file.symlink_to(victim)
    before = kept(victims)
    for attempt in (
        lambda: load_run(path)["t"].raw,
        lambda: load_run(path)["sparse"].samples,
        lambda: fill(path, 6, complete=True, compression=compression),
    ):
        try:
            attempt()
        except StoreError as error:
            assert "link" in error.message or "regular" in error.message or "run" in error.message
    assert kept(victims) == before


@COMPRESSION
@pytest.mark.parametrize("name", ["t", "sparse", "sparse~samples", "sample"])
def test_no_linked_folder_is_entered(tmp_path: Path, compression: str | None, name: str) -> None:
    path, victims = tmp_path / "run", tmp_path / "victims"
    fill(path, 4, complete=False, compression=compression)
    shutil.move(path / name, victims)
    (path / name).symlink_to(victims)
    before = kept(victims)
    with pytest.raises(StoreError):
        fill(path, 6, complete=True, compression=compression)
    with pytest.raises(StoreError):
        ZarrStore(path, [TAP], {}, overwrite=True)
    assert kept(victims) == before


def test_a_run_may_be_reached_through_a_link(tmp_path: Path) -> None:
    """That is its owner's own affair."""
    fill(tmp_path / "run", 2, complete=False)
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    fill(tmp_path / "latest", 4, complete=True)
    run = load_run(tmp_path / "latest")
    assert (len(run["t"].raw), run.complete, run.path) == (8, True, tmp_path / "latest")


def read_everything(path: Path) -> None:
    run = load_run(path)
    _ = run["t"].raw, run["sparse"].raw, run["sparse"].samples


@pytest.mark.parametrize("name", EVERY)
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    fill(tmp_path, 4, complete=False)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    if name in ("sample/zarr.json", "sample/c.0"):  # numbers of samples, which are written anew
        fill(tmp_path, 6, complete=True)
        assert (tmp_path / name).is_file()
        return
    with pytest.raises(StoreError):
        read_everything(tmp_path)
    with pytest.raises(StoreError):
        fill(tmp_path, 6, complete=True)


def test_a_journal_of_any_size_is_looked_at_from_its_end(tmp_path: Path) -> None:
    fill(tmp_path, 4, complete=False)
    with (tmp_path / "sample" / "journal.jsonl").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(StoreError, match="too long to be true"):
        load_run(tmp_path)


@pytest.mark.parametrize("name", ["zarr.json", "t/zarr.json", "t/c.0.0"])
def test_a_file_of_any_size_is_not_read(tmp_path: Path, name: str) -> None:
    fill(tmp_path, 4, complete=False, compression="zstd")
    (tmp_path / "t" / "tail.0").unlink(missing_ok=True)
    os.truncate(tmp_path / name, 1 << 40)
    with pytest.raises(StoreError):
        _ = load_run(tmp_path)["t"].raw


def test_rows_for_which_there_is_no_memory(tmp_path: Path) -> None:
    fill(tmp_path, 4, complete=False)
    rows = 1 << 40
    (tmp_path / "sample" / "journal.jsonl").write_text(
        f'{{"samples":{rows},"batches":2,"inputs":"","rows":{{"1":[0,"sparse"]}}}}\n'
    )
    document = (tmp_path / "t" / "zarr.json").read_text()
    (tmp_path / "t" / "zarr.json").write_text(
        document.replace(f'"chunk_rows": {(16 << 20) // 12}', f'"chunk_rows": {rows}')
    )
    os.truncate(tmp_path / "t" / "c.0.0", 12 * rows)
    with pytest.raises(StoreError, match=r"more than there is memory.*capture\[:1000\]"):
        _ = load_run(tmp_path)["t"].raw
    assert load_run(tmp_path)["t"][:2].raw.tolist() == [[1.0] * 3] * 2


def test_one_opener(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_file(file, b"12345678")
    write_file(file, np.arange(3, dtype=np.uint8))
    assert read_file(file, 3) == b"\0\1\2"
    with pytest.raises(StoreError, match="has 3 bytes, more than it can need"):
        read_file(file, 2)
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "folder").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder/file", "pipe", "folder", "file/below"):
        for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT):
            with pytest.raises(StoreError, match="no regular file"):
                open_file(tmp_path / name, flags)
    with pytest.raises(FileNotFoundError, match="none"):
        open_file(tmp_path / "none")
    with opened(file) as fd:
        assert os.read(fd, 9) == b"\0\1\2"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(StoreError, match="is no path"):
        real_path(Path("a\0b"))
