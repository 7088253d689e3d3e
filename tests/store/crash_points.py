"""End a writing process with SIGKILL at one of its system calls after another, and check the run.

Run by test_zarr_crash.py in a process of its own, because it forks: once per call that touches the
disk, the child is killed there (writes are torn in half), and then the parent reads the run, goes
on with it to its end, and reads it again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from layertap.core.graph import TapPoint
from layertap.store import layout
from layertap.store.zarr import ZarrStore, load_run

BATCHES = 6

layout.CHUNK_BYTES = layout.PACKED_CHUNK_BYTES = 1 << 20
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.rmdir"}


def tap(name: str, **more: Any) -> TapPoint:
    return TapPoint(name, "activation", "ADD", "float32", None, 0, **more)


TAPS = (
    tap("w", per="run"),
    *map(tap, ("plain", "ragged", "sparse", "demoted", "both")),
    tap("batch", per="batch"),
)
DEMOTED_AT = 3
"""The batch in which two taps turn out to have no row per sample."""


def rows_of(name: str, number: int) -> np.ndarray[Any, Any] | None:
    """What batch ``number`` (three samples) brings of a tap."""
    if name == "w":
        return np.arange(4, dtype=np.float32) if number == 0 else None
    if name in ("sparse", "both") and number % 2 == 0:
        return None
    # Rows of 128 KiB, eight to a chunk, so that batches begin and end within chunks.
    widths = {"plain": 1 << 15, "demoted": 1 << 15, "ragged": 3 + number // 3, "both": 1 + number}
    width = widths.get(name, 2)
    rows = np.full((1 if name == "batch" else 3, width), number, np.float32)
    rows[:, -1] = np.arange(len(rows))
    return rows


def write(path: Path, compression: str | None, batches: int = BATCHES, close: bool = True) -> None:
    """Write the run, or what is missing of it, to its end; ``close=False`` leaves it open there."""
    store = ZarrStore(path, TAPS, {}, compression=compression, resume=True)
    committed, feed = store.samples // 3, np.arange(3 * batches, dtype=np.float32)
    if committed:
        store.skip(3 * committed, {"x": feed[: 3 * committed]})
    for number in range(committed, batches):
        for one in TAPS:
            rows = rows_of(one.name, number)
            if number == DEMOTED_AT and one.name in ("demoted", "both"):
                store.demote(one, [(3, number)])
            if rows is not None and one.name in store.demoted:
                store.write(replace(one, per="batch"), rows[None])
            elif rows is not None:
                store.write(one, rows)
        store.commit(3, {"x": feed[3 * number : 3 * number + 3]})
        store._publish()
    if close:
        store.close(True)


def check(path: Path) -> int:
    """The number of batches that the run holds, every bit as it was written."""
    run = load_run(path)
    batches, over = divmod(run.samples, 3)
    assert not over, run.samples
    for one in TAPS:
        found_in = (rows_of(one.name, number) for number in range(batches))
        blocks = [block for block in found_in if block is not None]
        expected: list[np.ndarray[Any, Any]] = [row for block in blocks for row in block]
        if one.name in ("demoted", "both") and batches > DEMOTED_AT:
            expected = blocks
        assert len(run[one.name]) == (min(1, batches) if one.per == "run" else len(expected))
        if expected:
            found = run[one.name].raw
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    return batches


def killed_at(point: int, path: Path, compression: str | None) -> bool:
    """Write in a child that is killed at its disk call number ``point``; False when it had fewer
    and ended by itself."""
    child = os.fork()
    if child == 0:
        _die_at(point)
        write(path, compression)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def _die_at(point: int) -> None:
    calls = 0

    def reached() -> bool:
        nonlocal calls
        calls += 1
        return calls == point

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, _: tuple[Any, ...]) -> None:
        if event in EVENTS and reached():
            die()

    pwrite, plain_write = os.pwrite, os.write

    def torn_pwrite(fd: int, data: Any, offset: int) -> int:
        if reached():
            pwrite(fd, memoryview(data)[: len(data) // 2], offset)
            die()
        return pwrite(fd, data, offset)

    def torn_write(fd: int, data: Any) -> int:
        if reached():
            plain_write(fd, data[: len(data) // 2])
            die()
        return plain_write(fd, data)

    os.pwrite, os.write = torn_pwrite, torn_write
    sys.addaudithook(hook)


def main() -> None:
    folder, step = Path(sys.argv[1]), int(sys.argv[2])
    compression = sys.argv[3] if len(sys.argv) > 3 else None
    write(folder / "warm-up", compression)  # so that lazy imports are no crash points
    point = seen = 0
    while True:
        point += step
        path = folder / "run.zarr"
        if not killed_at(point, path, compression):
            break
        committed = check(path) if (path / "zarr.json").exists() else 0
        seen = max(seen, committed)
        write(path, compression)
        assert check(path) == BATCHES
        assert load_run(path).complete
        shutil.rmtree(path)
    assert seen == BATCHES
    sys.stdout.write(f"{point // step} crash points\n")


if __name__ == "__main__":
    main()
