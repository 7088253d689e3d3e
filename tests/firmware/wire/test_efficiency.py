"""At least 97 % of what goes over the wire for a tensor above 1 KiB is payload."""

from __future__ import annotations

import itertools
import random
import runpy
from pathlib import Path

import pytest

from layertap.firmware.wire.elements import NUMBERS, stored_bytes
from layertap.firmware.wire.messages import Tensor

MODULE = runpy.run_path(str(Path(__file__).with_name("efficiency.py")))
PAGE = Path(__file__).resolve().parents[3] / "docs" / "wire-format.md"


def share(header: Tensor, count: int) -> float:
    return count / int(MODULE["wire_bytes"](header, count))


@pytest.mark.parametrize("dtype", sorted(NUMBERS))
def test_the_smallest_tensors_above_a_kibibyte(dtype: str) -> None:
    elements = next(n for n in itertools.count(1) if stored_bytes(dtype, n) > 1024)
    for count in range(elements, elements + 40):
        for dims in ((count,), (1, count), (1, 1, 1, count), (count, 1, 1, 1)):
            header = Tensor(2**28 - 1, 127, 16383, 127, dtype, dims, 0, b"")
            assert share(header, stored_bytes(dtype, count)) >= 0.97


@pytest.mark.parametrize("count", [4096, 4097, 4098, 5000, 8192, 8193, 65_537, 300_001])
def test_tensors_in_pieces(count: int) -> None:
    assert share(MODULE["large"](count), count) >= 0.97


def test_shapes_of_real_layers() -> None:
    rng = random.Random(0)
    for _ in range(150):
        dims = tuple(rng.choice([1, 3, 10, 32, 49, 96, 130]) for _ in range(rng.randint(1, 4)))
        dtype = rng.choice(sorted(NUMBERS))
        header = Tensor(rng.randrange(10**6), 0, rng.randrange(200), 3, dtype, dims, 0, b"")
        count = stored_bytes(dtype, header.elements)
        if 1024 < count < 100_000:
            assert share(header, count) >= 0.97


def test_the_page_has_what_is_measured() -> None:
    assert f"```text\n{MODULE['table']()}\n```" in PAGE.read_text(encoding="utf-8")
