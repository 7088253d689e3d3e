from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from layertap.runtimes.worker.block import HEAD, Block

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array([5], np.int8),
    np.zeros((1, 0, 3), np.int16),
    np.array([True, False]),
    np.array([1 + 2j], np.complex64),
    np.array([1.5], ml_dtypes.bfloat16),
    np.array([-3, 7], ml_dtypes.int4),
    np.arange(6).reshape(2, 3).T,
]


@pytest.fixture
def block() -> Iterator[Block]:
    block = Block.made()
    yield block
    block.close()


def test_what_one_side_puts_in_the_other_reads(block: Block) -> None:
    other = Block(os.dup(block.descriptor))
    places, end = block.put(ARRAYS)
    assert end % 64 == 0
    for array, place in zip(ARRAYS, places, strict=True):
        found = other.array(place)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()
        assert place[2] >= HEAD
    other.close()


def test_arrays_do_not_overlap(block: Block) -> None:
    places, _ = block.put([np.full((3, 5), i, np.uint8) for i in range(4)])
    assert [set(block.array(place).flat) for place in places] == [{0}, {1}, {2}, {3}]


def test_it_grows_and_what_was_there_stays(block: Block) -> None:
    other = Block(os.dup(block.descriptor))
    (place,), _ = block.put([np.arange(10)])
    before = block.array(place)
    big = ("uint8", (5 << 20,), 4096)
    other.array(big)[-1] = 7
    assert block.array(big)[-1] == 7
    assert before.tolist() == block.array(place).tolist() == list(range(10))
    other.close()


def test_rows_with_a_stride(block: Block) -> None:
    block.array(("uint8", (100,), 128))[:] = np.arange(100)
    rows = block.array(("uint8", (3, 2), 128), 40)
    assert rows.tolist() == [[0, 1], [40, 41], [80, 81]]


def test_progress_is_seen_by_the_other_side(block: Block) -> None:
    other = Block(os.dup(block.descriptor))
    other.reach(HEAD)
    when = other.tell(12)
    assert block.told == (when, 12)
    other.close()


def test_more_than_there_is_room_for_is_an_error(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        block.put([np.zeros(3 << 20, np.uint8)])


def test_a_system_without_files_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.delattr(os, "posix_fallocate")
    block = Block.made()
    (place,), _ = block.put([np.arange(5)])
    assert block.array(place).tolist() == [0, 1, 2, 3, 4]
    block.close()


def test_closing_gives_back_the_file_and_leaves_the_arrays(block: Block) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    (place,), _ = block.put([np.arange(5)])
    array = block.array(place)
    block.close()
    block.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    assert array.tolist() == [0, 1, 2, 3, 4]
