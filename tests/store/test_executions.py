"""From samples to the executions that they came from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.core.protocols import Sink
from layertap.core.rows import RowMaker
from layertap.errors import StoreError
from layertap.store.executions import Executions, groups
from layertap.store.zarr import ZarrStore, load_run
from layertap.testing.store import feed_of, make_tap

RUNS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=6)


@given(RUNS)
def test_each_sample_knows_its_execution(runs: list[tuple[int, int]]) -> None:
    executions = Executions(runs)
    sizes = [size for size, times in runs for _ in range(times)]
    assert (executions.samples, executions.count) == (sum(sizes), len(sizes))
    of_samples = [(i, size) for i, size in enumerate(sizes) for _ in range(size)]
    assert [executions.at(sample) for sample in range(executions.samples)] == of_samples
    starts = np.cumsum([0, *sizes]).tolist()
    for i, start in enumerate(starts):
        later = [size for size, times in executions.since(start) for _ in range(times)]
        assert later == sizes[i:]


@given(RUNS, st.lists(st.booleans(), min_size=100, max_size=100), st.integers(1, 5))
def test_the_executions_of_which_there_are_rows(
    runs: list[tuple[int, int]], there: list[bool], block: int
) -> None:
    sizes = [size for size, times in runs for _ in range(times)]
    starts = np.cumsum([0, *sizes]).tolist()
    present = [i for i in range(len(sizes)) if there[i]]
    numbers = [n for i in present for n in range(starts[i], starts[i + 1])]
    blocks = (np.array(numbers[i : i + block]) for i in range(0, len(numbers), block))
    found = list(groups(Executions(runs), blocks))
    assert [first + i for first, _, times in found for i in range(times)] == present
    assert [size for _, size, times in found for _ in range(times)] == [sizes[i] for i in present]
    assert len(found) <= len(present)


WRONG = make_tap("total", shape=(3,))


def add_batch(store: Sink, rows: RowMaker, size: int) -> None:
    """A batch of ``size`` samples and its sum over them: three numbers, whatever the size."""
    total = np.full((1, 3), store.samples, np.float32)
    rows.begin(size)
    store.write(*rows.of(WRONG, total))
    store.commit(size, feed_of(store.samples, size))
    rows.executed(size, 1)


def part(path: Path, sizes: list[int], skip: list[int]) -> None:
    store = ZarrStore(path, [WRONG], {}, resume=True)
    rows = RowMaker([WRONG], store, batched=True)
    assert store.samples == sum(skip)
    done = 0
    for size in skip:
        store.skip(size, feed_of(done, size))
        rows.executed(size, 1)
        done += size
    for size in sizes:
        add_batch(store, rows, size)
    store.close(True)


@pytest.mark.parametrize("skip", [[3, 3], [6], [1, 2, 3]])
def test_the_batches_of_a_resumed_run_are_known(tmp_path: Path, skip: list[int]) -> None:
    """Whatever those are in which it is skipped; after a demotion the tap stays as it is."""
    part(tmp_path, [3, 3], [])
    assert load_run(tmp_path)["total"].tap.per == "sample"
    part(tmp_path, [3, 2], skip)
    part(tmp_path, [3], [*skip, 5])
    capture = load_run(tmp_path)["total"]
    assert capture.tap == replace(WRONG, per="batch", shape=(None,))
    assert capture.raw.tolist() == [[n] * 3 for n in (0, 3, 6, 9, 11)]
    assert load_run(tmp_path).provenance["demoted"] == ["total"]


def test_where_the_batches_of_the_first_part_are_not_known_the_run_is_not_gone_on_with(
    tmp_path: Path,
) -> None:
    """As in a run of batches of ever other sizes."""
    sizes = [3, *range(4, 40), 3]
    store = ZarrStore(tmp_path, [make_tap("t")], {})
    for size in sizes:
        store.write(make_tap("t"), np.full((size, 1), size, np.float32))
        store.commit(size, feed_of(store.samples, size))
    store.close(False)
    store = ZarrStore(tmp_path, [make_tap("t")], {}, resume=True)
    store.skip(sum(sizes), feed_of(0, sum(sizes)))
    with pytest.raises(StoreError, match="does not tell the batches.*overwrite"):
        store.demote(make_tap("t"), [(sum(sizes), 1)])
    store.close(False)
    run = load_run(tmp_path)
    assert (run.samples, run["t"].tap.per) == (sum(sizes), "sample")
    assert run["t"].raw[:, 0].tolist() == np.repeat(sizes, sizes).tolist()
