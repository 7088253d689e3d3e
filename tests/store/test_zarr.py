"""The store on disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from layertap.core.captures import Run
from layertap.core.graph import TapPoint
from layertap.core.protocols import Json, Sink
from layertap.errors import StoreError
from layertap.store.zarr import ZarrStore, load_run
from layertap.testing.store import (
    PersistentStoreSuite,
    feed_of,
    make_tap,
    random_bits,
)

TAP = make_tap("t")


class TestZarrStore(PersistentStoreSuite):
    compression: str | None = None

    def make_store(
        self, folder: Path, taps: Sequence[TapPoint], provenance: Mapping[str, Json]
    ) -> Sink:
        return ZarrStore(folder, taps, provenance, compression=self.compression)

    def resume(
        self, folder: Path, taps: Sequence[TapPoint], provenance: Mapping[str, Json]
    ) -> Sink:
        return ZarrStore(folder, taps, provenance, compression=self.compression, resume=True)

    def load(self, folder: Path, store: Sink) -> Run:
        return load_run(folder)


class TestZarrStoreCompressed(TestZarrStore):
    compression = "zstd:3"


def fill(path: Path, batches: int = 2, *, complete: bool = True, **options: Any) -> None:
    """A run of one tap, two samples a batch, each row filled with the batch's number."""
    store = ZarrStore(path, [TAP], {}, **options)
    for number in range(batches):
        store.write(TAP, np.full((2, 3), number, np.float32))
        store.commit(2, feed_of(2 * number, 2))
    store.close(complete)


def rows_of(path: Path) -> list[float]:
    return [float(row[0]) for row in load_run(path)["t"].raw]


def test_metadata_is_in_the_attributes(tmp_path: Path) -> None:
    fill(tmp_path / "run.zarr")
    group = zarr.open_group(tmp_path / "run.zarr", mode="r")
    facts = group.attrs["layertap"]
    assert isinstance(facts, dict)
    assert (facts["samples"], facts["complete"], facts["format"]) == (4, True, 1)
    assert dict(group["t"].attrs) == {
        "tap": "t",
        "kind": "activation",
        "op": "ADD",
        "raw_dtype": "float32",
        "chunk_rows": (16 << 20) // 12,
    }
    assert load_run(tmp_path / "run.zarr").provenance["inputs"] == {
        "sha256": facts["inputs_sha256"]
    }


def test_a_small_run_takes_little_space(tmp_path: Path) -> None:
    for compression in (None, "zstd"):
        path = tmp_path / f"{compression}.zarr"
        fill(path, compression=compression)
        assert sum(file.stat().st_size for file in path.rglob("*")) < 32 << 10


def test_the_journal_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layertap.store.journal._COMPACT_BYTES", 16 << 10)
    path = tmp_path / "run.zarr"
    fill(path, 500, complete=False)
    assert (path / "sample" / "journal.jsonl").stat().st_size < 20 << 10
    assert rows_of(path) == [i // 2 for i in range(1000)]
    store = ZarrStore(path, [TAP], {}, resume=True)
    store.skip(1000, feed_of(0, 1000))
    store.close(True)
    assert load_run(path).complete


def test_an_existing_run_is_not_touched(tmp_path: Path) -> None:
    fill(tmp_path / "run.zarr")
    with pytest.raises(StoreError, match="--resume.*--overwrite"):
        fill(tmp_path / "run.zarr", 1)
    assert rows_of(tmp_path / "run.zarr") == [0, 0, 1, 1]


def test_overwrite_replaces_a_run(tmp_path: Path) -> None:
    fill(tmp_path / "run.zarr", 5)
    fill(tmp_path / "run.zarr", 1, overwrite=True)
    assert rows_of(tmp_path / "run.zarr") == [0, 0]


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_of_other_files_is_never_touched(tmp_path: Path, options: Any) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="no run of layertap"):
        fill(tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("foreign", ["notes.txt", "photos/1.jpg"])
def test_overwrite_spares_what_is_not_of_the_run(tmp_path: Path, foreign: str) -> None:
    fill(tmp_path)
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    with pytest.raises(StoreError, match="not of the run"):
        fill(tmp_path, overwrite=True)
    assert (tmp_path / foreign).read_text() == "mine"
    assert rows_of(tmp_path) == [0, 0, 1, 1]


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    fill(tmp_path)
    assert rows_of(tmp_path) == [0, 0, 1, 1]


def test_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run.zarr").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        fill(tmp_path / "run.zarr", overwrite=True)
    with pytest.raises(StoreError, match="cannot write"):
        fill(tmp_path / "run.zarr" / "below")


def test_either_resume_or_overwrite(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="either"):
        fill(tmp_path, resume=True, overwrite=True)


@pytest.mark.parametrize("compression", ["zip", "zstd:0", "zstd:23", "zstd:x", ""])
def test_unknown_compression(tmp_path: Path, compression: str) -> None:
    with pytest.raises(StoreError, match="zstd:LEVEL"):
        fill(tmp_path / "run.zarr", compression=compression)
    assert not (tmp_path / "run.zarr").exists()


def test_a_second_writer_is_kept_out(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, [TAP], {})
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(StoreError, match="another capture"):
            ZarrStore(tmp_path, [TAP], {}, **options)
    store.write(TAP, np.zeros((1, 3), np.float32))
    store.commit(1, feed_of(0, 1))
    store.close(True)
    assert rows_of(tmp_path) == [0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_full_disk(small_disk: Path, compression: str | None) -> None:
    path = small_disk / "run.zarr"
    store = ZarrStore(path, [TAP], {}, compression=compression)
    rows = random_bits("float32", (2, 16 << 10)).view(np.float32)
    written = 0

    def write_on() -> None:
        nonlocal written
        while written < 100:
            store.write(TAP, rows)
            store.commit(2, feed_of(2 * written, 2))
            written += 1

    with pytest.raises(StoreError, match=r"No space left on device.*--resume") as raised:
        write_on()
    assert isinstance(raised.value.__cause__, OSError)
    with pytest.raises(StoreError, match="closed"):
        store.commit(2, feed_of(0, 2))
    store.close(False)
    assert 3 < written < 9
    run = load_run(path)
    assert (run.samples, run.complete) == (2 * written, False)
    assert run["t"].raw.tobytes() == rows.tobytes() * written


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_leaves_what_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store = ZarrStore(tmp_path, [TAP], {})
    store.write(TAP, np.zeros((2, 3), np.float32))
    store.commit(2, feed_of(0, 2))

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", fail)
        with pytest.raises(StoreError, match="resume"):
            store.write(TAP, np.ones((2, 3), np.float32))
    store.close(False)
    assert rows_of(tmp_path) == [0, 0]
    store = ZarrStore(tmp_path, [TAP], {}, resume=True)
    store.skip(2, feed_of(0, 2))
    store.write(TAP, np.full((2, 3), 5, np.float32))
    store.commit(2, feed_of(2, 2))
    store.close(True)
    assert rows_of(tmp_path) == [0, 0, 5, 5]


def test_a_journal_line_that_does_not_fit_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ZarrStore(tmp_path, [TAP], {})
    store.write(TAP, np.zeros((2, 3), np.float32))
    store.commit(2, feed_of(0, 2))
    store.write(TAP, np.ones((2, 3), np.float32))
    write = os.write
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
        with pytest.raises(StoreError, match="No space"):
            store.commit(2, feed_of(2, 2))
    store.close(False)
    assert (tmp_path / "sample" / "journal.jsonl").read_bytes().count(b"\n") == 1
    assert rows_of(tmp_path) == [0, 0]


def test_an_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)  # root may write anywhere
    with pytest.raises(StoreError, match="Permission denied.*may write"):
        fill(tmp_path / "run.zarr")


@pytest.mark.parametrize("rows", [np.array(["a"]), np.array([None]), np.zeros(2, "i4,f4")])
def test_what_is_not_a_number(tmp_path: Path, rows: Any) -> None:
    store = ZarrStore(tmp_path, [TAP], {})
    with pytest.raises(StoreError, match="cannot be stored"):
        store.write(TAP, rows)
    store.close(False)


def test_rows_for_more_samples_than_there_are(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path, [TAP], {})
    store.write(TAP, np.zeros((3, 1), np.float32))
    with pytest.raises(StoreError, match="3 rows for 2 samples"):
        store.commit(2, feed_of(0, 2))
    store.close(False)


def test_resuming_nothing_starts_anew(tmp_path: Path) -> None:
    fill(tmp_path / "a" / "run.zarr", resume=True)
    assert rows_of(tmp_path / "a" / "run.zarr") == [0, 0, 1, 1]
    (tmp_path / "b" / "sample").mkdir(parents=True)
    (tmp_path / "b" / "sample" / "lock").touch()  # killed before its first commit
    fill(tmp_path / "b", resume=True)
    assert rows_of(tmp_path / "b") == [0, 0, 1, 1]


def test_samples_must_be_skipped_before_more_come(tmp_path: Path) -> None:
    fill(tmp_path, complete=False)
    store = ZarrStore(tmp_path, [TAP], {}, resume=True)
    store.write(TAP, np.zeros((1, 3), np.float32))
    with pytest.raises(StoreError, match="goes on after sample 4"):
        store.commit(1, feed_of(0, 1))
    store.close(False)
    assert rows_of(tmp_path) == [0, 0, 1, 1]


def test_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run at"):
        load_run(tmp_path / "none")
    with pytest.raises(StoreError, match="is not a run of layertap"):
        load_run(tmp_path)
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="is not a run of layertap"):
        load_run(tmp_path / "other.zarr")


def edit(path: Path, change: Any) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    edit(tmp_path / "zarr.json", lambda d: d["attributes"]["layertap"].update(format=2))
    for step in (lambda: load_run(tmp_path), lambda: fill(tmp_path, resume=True)):
        with pytest.raises(StoreError, match="format 2.*upgrade"):
            step()


def test_a_torn_last_line_does_not_count(tmp_path: Path) -> None:
    fill(tmp_path, complete=False)
    with (tmp_path / "sample" / "journal.jsonl").open("a") as journal:
        journal.write('{"samples": 99')
    assert rows_of(tmp_path) == [0, 0, 1, 1]
    fill_rest = ZarrStore(tmp_path, [TAP], {}, resume=True)
    fill_rest.skip(4, feed_of(0, 4))
    fill_rest.close(True)
    assert load_run(tmp_path).complete


@pytest.mark.parametrize(
    "line",
    [
        "rubbish",
        "[]",
        "{}",
        '{"samples":-1,"batches":1,"inputs":""}',
        '{"samples":1.5,"batches":1,"inputs":""}',
        '{"samples":4,"batches":2,"inputs":"","rows":{"0":[5,""]}}',
        '{"samples":4,"batches":2,"inputs":"","rows":{"0":[4,"odd"]}}',
        '{"samples":4,"batches":2,"inputs":"","rows":{"0":[4,7]}}',
        '{"samples":4,"batches":2,"inputs":"","rows":{"x":[4,""]}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_journal(tmp_path: Path, line: str) -> None:
    fill(tmp_path)
    with (tmp_path / "sample" / "journal.jsonl").open("a") as journal:
        journal.write(line + "\n")
    with pytest.raises(StoreError, match="damaged"):
        load_run(tmp_path)


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("damage", ["missing", "short", "huge claim", "a folder"])
def test_a_damaged_chunk(tmp_path: Path, compression: str | None, damage: str) -> None:
    fill(tmp_path, compression=compression)
    chunk = tmp_path / "t" / "c.0.0"
    if damage == "short":
        chunk.write_bytes(chunk.read_bytes()[:-5])
    elif damage == "huge claim":
        line = f'{{"samples":{1 << 50},"batches":2,"inputs":""}}\n'
        (tmp_path / "sample" / "journal.jsonl").write_text(line)
    else:
        chunk.unlink()
    if damage == "a folder":
        chunk.mkdir()
    run = load_run(tmp_path)
    with pytest.raises(StoreError, match="damaged"):
        _ = run["t"].raw


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(shape=[4, -3]),
        lambda d: d.update(shape=[4, 1 << 70]),
        lambda d: d.update(shape=3),
        lambda d: d.update(shape=[]),
        lambda d: d.update(data_type="object"),
        lambda d: d.update(data_type=["int8"]),
        lambda d: d.update(codecs=[{"name": "pickle"}]),
        lambda d: d["attributes"].update(chunk_rows=0),
        lambda d: d["attributes"].update(raw_dtype="object"),
        lambda d: d["attributes"].update(raw_dtype="float64"),
        lambda d: d["attributes"].update(raw_dtype=None),
        lambda d: d.pop("attributes"),
    ],
)
def test_a_damaged_array_document(tmp_path: Path, change: Any) -> None:
    fill(tmp_path)
    edit(tmp_path / "t" / "zarr.json", change)
    with pytest.raises(StoreError, match="damaged"):
        _ = load_run(tmp_path)["t"].raw


@pytest.mark.parametrize(
    "node", ["..", "../x", "/etc", "a/b", "", ".", "sample", 3, None, "zarr.json"]
)
def test_array_names_cannot_leave_the_run(tmp_path: Path, node: object) -> None:
    fill(tmp_path)
    edit(
        tmp_path / "zarr.json",
        lambda d: d["attributes"]["layertap"]["taps"][0].update(array=node),
    )
    with pytest.raises(StoreError, match="damaged"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tap: tap.pop("name"),
        lambda tap: tap.update(kind="virus"),
        lambda tap: tap.update(shape=5),
        lambda tap: tap.update(quantization={"scales": "x"}),
        lambda tap: tap.update(index="x"),
    ],
)
def test_a_damaged_run_document(tmp_path: Path, change: Any) -> None:
    fill(tmp_path)
    edit(tmp_path / "zarr.json", lambda d: change(d["attributes"]["layertap"]["taps"][0]))
    with pytest.raises(StoreError, match="damaged"):
        load_run(tmp_path)


def test_a_document_that_is_not_json_is_no_run(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "zarr.json").write_text("[" * 100_000)
    with pytest.raises(StoreError, match="not a run"):
        load_run(tmp_path)


def test_loading_modifies_nothing(tmp_path: Path) -> None:
    fill(tmp_path, complete=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert rows_of(tmp_path) == [0, 0, 1, 1]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_provenance_may_hold_anything(tmp_path: Path) -> None:
    facts = {"path": Path("/x"), "pair": (1, 2), "nan": float("nan"), "deep": {"a": [True, None]}}
    store = ZarrStore(tmp_path, [TAP], facts)
    store.commit(1, feed_of(0, 1))
    store.close(False)
    kept = load_run(tmp_path).provenance
    assert {key: kept[key] for key in facts} == {
        "path": "/x",
        "pair": [1, 2],
        "nan": "nan",
        "deep": {"a": [True, None]},
    }
    ZarrStore(tmp_path, [TAP], facts, resume=True).close(False)
