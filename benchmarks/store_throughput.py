"""Streaming captures to disk, against one raw ``write()`` of the same bytes to one file.

Neither side waits for the disk (no fsync): what is compared is the work per byte, not the page
cache's luck. Files are deleted and the disk's queue drained before each round.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from benchmarks.timing import interleaved

from layertap.core.graph import TapPoint
from layertap.store.zarr import ZarrStore

try:
    import pyarrow
except ImportError:
    pyarrow = None

ROUNDS = 11
PEER_ROUNDS = 1
Blocks = list[np.ndarray[Any, np.dtype[np.float32]]]


@dataclass(frozen=True)
class Work:
    """``batches`` batches of ``taps`` float32 taps (rows, width) each."""

    name: str
    taps: int
    rows: int
    width: int
    batches: int
    bar: float

    def blocks(self) -> Blocks:
        rng = np.random.default_rng(0)
        return [rng.random((self.rows, self.width), np.float32) for _ in range(self.taps)]


WORKS = (
    Work("8 MiB a batch, 1 tap", 1, 32, 65536, 48, 1.3),
    Work("8 MiB a batch, 8 taps of 1 MiB", 8, 32, 8192, 48, 1.3),
    Work("32 KiB a tensor, 16 taps", 16, 8, 1024, 250, 3.0),
)


def raw_write(folder: Path, work: Work, blocks: Blocks) -> None:
    fd = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT, 0o666)
    for _ in range(work.batches):
        for block in blocks:
            os.write(fd, block.data)
    os.close(fd)


def layertap_store(
    folder: Path, work: Work, blocks: Blocks, compression: str | None = None
) -> None:
    taps = [
        TapPoint(f"tap{i}", "activation", "RELU", "float32", (None, work.width), i)
        for i in range(work.taps)
    ]
    feed = {"x": np.zeros((work.rows, 16), np.float32)}
    store = ZarrStore(folder / "run.zarr", taps, {}, compression=compression)
    for _ in range(work.batches):
        for tap, block in zip(taps, blocks, strict=True):
            store.write(tap, block)
        store.commit(work.rows, feed)
    store.close(True)


def zarr_append(folder: Path, work: Work, blocks: Blocks) -> None:
    group = zarr.create_group(folder / "peer.zarr")
    arrays = [
        group.create_array(f"tap{i}", shape=(0, work.width), chunks=block.shape, dtype="float32")
        for i, block in enumerate(blocks)
    ]
    for _ in range(work.batches):
        for array, block in zip(arrays, blocks, strict=True):
            array.append(block)


def arrow_stream(folder: Path, work: Work, blocks: Blocks) -> None:
    names = [f"tap{i}" for i in range(work.taps)]
    kind = pyarrow.list_(pyarrow.float32(), work.width)
    schema = pyarrow.schema([(name, kind) for name in names])
    with (
        pyarrow.OSFile(str(folder / "peer.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, schema) as stream,
    ):
        for _ in range(work.batches):
            columns = [
                pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(block.reshape(-1)), type=kind)
                for block in blocks
            ]
            stream.write_batch(pyarrow.record_batch(columns, schema=schema))


RAW: dict[str, Callable[[Path, Work, Blocks], None]] = {"raw write()": raw_write}
OURS = {**RAW, "layertap": layertap_store}
PEERS = {
    **RAW,
    "layertap, zstd": partial(layertap_store, compression="zstd"),
    "zarr-python append": zarr_append,
}
if pyarrow is not None:
    PEERS["Arrow IPC stream"] = arrow_stream


def rows() -> list[dict[str, object]]:
    """One row per work and contender: the ratio to the raw write, and layertap's bar.

    The peers come after all else: what they leave, the disk is busy with for a while.
    """
    with tempfile.TemporaryDirectory(prefix="store-bench-") as name:
        folder = Path(name) / "work"
        ours = [_measure(work, folder, OURS, ROUNDS) for work in WORKS]
        # Fewer times: one of them takes minutes.
        peers = [_measure(work, folder, PEERS, PEER_ROUNDS) for work in WORKS]
    return [
        {
            "work": work.name,
            "contender": contender,
            "ratio": ratio,
            "bar": work.bar if contender == "layertap" else None,
        }
        for work, own, others in zip(WORKS, ours, peers, strict=True)
        for contender, ratio in {**own, **others}.items()
    ]


def _measure(
    work: Work, folder: Path, contenders: dict[str, Callable[..., None]], rounds: int
) -> dict[str, float]:
    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os.sync()
        folder.mkdir()

    blocks = work.blocks()
    runs = {name: partial(run, folder, work, blocks) for name, run in contenders.items()}
    return interleaved(runs, rounds, prepare=prepare)
