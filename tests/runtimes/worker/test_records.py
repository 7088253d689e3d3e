"""Records as the worker writes them, and as the session takes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.runtimes.worker.block import HEAD, Block
from layertap.runtimes.worker.records import Records
from layertap.runtimes.worker.taken import Taken

Values = list[np.ndarray]


@pytest.fixture
def block() -> Iterator[Block]:
    block = Block.made()
    yield block
    block.close()


def write(records: Records, values: Values) -> None:
    records.add([lambda value=value: value for value in values])


def some(rng: np.random.Generator, length: int) -> Values:
    return [
        rng.integers(-9, 9, (length, 2)).astype(np.int8),
        rng.normal(size=()).astype(np.float32),
    ]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 5))
def test_values_of_any_shapes_come_back_in_order(lengths: list[int], every: int) -> None:
    rng = np.random.default_rng(0)
    block = Block.made()
    written = [some(rng, length) for length in lengths]
    taken = Taken(block)
    form = {}
    records = Records(
        block, HEAD, 1 << 20, len(written), lambda f: form.update(f) or taken.hear({"form": f})
    )
    for i, values in enumerate(written):
        write(records, values)
        if i % every == 0:
            taken.hear({"ready": records.count})
    taken.hear({"ready": records.count})
    assert taken.count == len(written)
    for position in range(2):
        found = [row for arrays in taken.values for row in arrays[position]]
        for row, values in zip(found, written, strict=True):
            np.testing.assert_array_equal(row, values[position])
    # One form for each change of the shape.
    changes = 1 + sum(a != b for a, b in itertools.pairwise(lengths))
    assert len(taken.values) == changes
    block.close()


def test_records_end_at_the_limit_and_one_always_fits(block: Block) -> None:
    for size, limit, fitting in ((64, HEAD + 64 * 5, 5), (64, HEAD + 1, 1), (6400, HEAD, 1)):
        records = Records(block, HEAD, limit, 100, lambda form: None)
        while not records.full:
            write(records, [np.zeros(size, np.uint8)])
        assert records.count == fitting


def test_no_more_memory_than_for_the_records_that_are_asked_for(block: Block) -> None:
    forms: list[dict[str, int]] = []
    records = Records(block, HEAD, 64 << 20, 3, forms.append)
    write(records, [np.zeros(1000, np.uint8)])
    assert forms[0]["room"] == 3
    assert forms[0]["stride"] == 1024


def test_what_was_taken_is_ones_own(block: Block) -> None:
    taken = Taken(block)
    records = Records(block, HEAD, 1 << 20, 2, lambda form: taken.hear({"form": form}))
    write(records, [np.ones(3)])
    taken.hear({"ready": 1})
    ((array,),) = taken.values
    array[:] = 5
    again = Taken(block)
    records = Records(block, HEAD, 1 << 20, 2, lambda form: again.hear({"form": form}))
    write(records, [np.zeros(3)])
    assert array.tolist() == [[5, 5, 5]]


def test_nothing_read_is_still_counted(block: Block) -> None:
    taken = Taken(block)
    records = Records(block, HEAD, 1 << 20, 2, lambda form: taken.hear({"form": form}))
    write(records, [])
    write(records, [])
    taken.hear({"ready": 2})
    assert (taken.count, taken.values) == (2, [[]])
