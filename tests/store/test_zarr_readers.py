"""What the store writes, as other programs and the operating system see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import xarray
import zarr

from layertap.store.zarr import ZarrStore, load_run
from layertap.testing.store import DTYPES, NAMES, feed_of, make_tap, random_bits

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "in-progress"])
def test_other_programs_read_it(tmp_path: Path, compression: str | None, closed: bool) -> None:
    """zarr-python, xarray and TensorStore, without a warning (warnings are errors here)."""
    path = tmp_path / "run.zarr"
    stored = {name: random_bits(name, (4, 3), 1) for name in DTYPES}
    taps = [make_tap(name, name) for name in DTYPES]
    taps += [make_tap("w", per="run"), make_tap("b", per="batch"), make_tap("scalar")]
    taps += [make_tap("ragged"), make_tap("sparse"), make_tap("empty"), *map(make_tap, NAMES)]
    taps += [make_tap("demoted")]
    by_name = {tap.name: tap for tap in taps}
    store = ZarrStore(path, taps, {}, compression=compression)
    store.write(by_name["w"], np.ones((2, 2), np.float32))
    for number in range(2):
        for name, rows in stored.items():
            store.write(by_name[name], rows[2 * number : 2 * number + 2])
        store.write(by_name["b"], np.ones((1, 2), np.float32))
        store.write(by_name["scalar"], np.arange(2, dtype=np.float32))
        store.write(by_name["ragged"], np.ones((2, 3 + number), np.float32))
        store.write(by_name["empty"], np.ones((2, 0), np.float32))
        for name in NAMES:
            store.write(by_name[name], np.ones((2, 1), np.float32))
        if number:
            store.write(by_name["sparse"], np.full((2, 1), 7, np.float32))
            store.demote(by_name["demoted"], [(2, 1)])
        store.write(by_name["demoted"], np.full((1, 2) if number else (2,), 5, np.float32))
        store.commit(2, feed_of(2 * number, 2))
    store.close(True) if closed else store._publish()
    group = zarr.open_group(path, mode="r")
    members = dict(group.members(max_depth=None))
    assert len(members) == len(taps) + 1 + 1 + 1  # sample, sparse~samples, ragged in two arrays
    with xarray.open_zarr(path, consolidated=False) as dataset:
        dataset.load()
        assert dataset["sample"].values.tolist() == [0, 1, 2, 3]
        assert dataset["float32"].dims == ("sample", "float32~axis1")
        assert dataset["b"].dims == ("batch", "b~axis1")
        assert dataset["demoted~batch"].dims == ("batch", "demoted~batch~axis1")
        assert (dataset["demoted~batch"].values == [[5, 5], [5, 5]]).all()
        assert dataset["sparse~samples"].values.tolist() == [2, 3]
    run = load_run(path)
    for name, array in members.items():
        assert isinstance(array, zarr.Array)
        kept = tensorstore.open({"driver": "zarr3", "kvstore": f"file://{path}/{name}/"}).result()
        found = np.asarray(array[...])
        np.testing.assert_array_equal(kept.read().result(), found)
        if name in DTYPES and np.dtype(run[name].raw.dtype).name == found.dtype.name:
            assert found.tobytes() == stored[name].tobytes() == run[name].raw.tobytes()
        elif name in DTYPES:
            np.testing.assert_array_equal(found, stored[name].astype(found.dtype))
    store.close(True)


def test_long_arrays_have_chunks_of_bounded_size(tmp_path: Path) -> None:
    tap = make_tap("t")
    store = ZarrStore(tmp_path / "run.zarr", [tap], {})
    rows = np.arange(5 << 20, dtype=np.float32).reshape(5, -1)  # 20 MiB
    for number in range(3):
        store.write(tap, rows + number)
        store.commit(5, feed_of(5 * number, 5))
    store.close(True)
    files = sorted((tmp_path / "run.zarr" / "t").glob("c.*"))
    assert [file.stat().st_size for file in files] == [rows.nbytes] * 3
    raw = load_run(tmp_path / "run.zarr")["t"][3:12].raw
    np.testing.assert_array_equal(raw[:, 0], [rows[i % 5, 0] + i // 5 for i in range(3, 12)])


MEMORY = """
import resource, sys, pathlib, numpy as np
from layertap.core.graph import TapPoint
from layertap.store.zarr import ZarrStore
taps = [TapPoint(f"t{i}", "activation", "ADD", "float32", None, i) for i in range(4)]
store = ZarrStore(pathlib.Path(sys.argv[1]), taps, {}, compression=sys.argv[2] or None)
rows = np.zeros((1, 4096), np.float32)
def batches(count):
    for number in range(count):
        for tap in taps[:3] if number % 5 else taps:
            store.write(tap, rows)
        store.commit(1, {"x": rows})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
first = batches(300)
print((batches(3000) - first) / 1024)
store.close(True)
"""


@pytest.mark.parametrize("compression", ["", "zstd"])
def test_memory_stays_flat(tmp_path: Path, compression: str) -> None:
    """150 MB of captures after the first 15 MB take no more than a MiB or two."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "run.zarr"), compression],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert float(done.stdout) < 4
