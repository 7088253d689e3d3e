"""layertap show."""

from __future__ import annotations

import json

import numpy as np
import pytest

import layertap
from layertap.core.graph import TapPoint
from layertap.demo import asset, digits
from layertap.store.zarr import ZarrStore


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run.zarr"
    with layertap.open(asset("digits_int8.tflite"), "tflm") as model:
        return model.capture(digits().image[:6], to=path)


def test_provenance_and_summaries(cli, cli_json, run):
    document = cli_json("show", run.path)
    assert document["complete"]
    assert document["samples"] == 6
    assert document["provenance"]["runtime"] == "tflm"
    assert [tap["name"] for tap in document["taps"]] == list(run)
    logits = next(tap for tap in document["taps"] if tap["name"] == "logits")
    assert logits["summary"]["max"] == float(run["logits"].values.max())
    text = cli("show", run.path).stdout
    assert "6, complete" in text
    assert document["provenance"]["model"]["sha256"][:16] in text


def test_values_of_one_sample(cli, cli_json, run):
    document = cli_json("show", run.path, "-t", "logits", "--sample", 2)
    np.testing.assert_allclose(document["values"], run["logits"].values[2])
    raw = cli_json("show", run.path, "-t", "logits", "--sample", 2, "--raw")
    assert raw["values"] == run["logits"].raw[2].tolist()
    assert raw["dtype"] == "int8"
    text = cli("show", run.path, "-t", "stem_relu", "--sample", 0).stdout
    assert "..." in text
    assert len(text) < 10_000


def test_a_tap_that_some_samples_do_not_reach(cli, cli_json, tmp_path):
    """--sample is the number of the sample, not of the row."""
    taps = [TapPoint(name, "output", "ADD", "float32", (None, 1), 0) for name in ("all", "some")]
    store = ZarrStore(tmp_path / "run.zarr", taps, {"runtime": "test"})
    for number in range(4):
        rows = np.full((1, 1), number, np.float32)
        for tap in taps if number in (1, 3) else taps[:1]:
            store.write(tap, rows)
        store.commit(1, {"x": rows})
    store.close(True)

    def shown(sample):
        document = cli_json("show", tmp_path / "run.zarr", "-t", "some", "--sample", sample)
        return document["sample"], document["values"]

    assert [shown(1), shown(3), shown(-1)] == [(1, [1]), (3, [3]), (3, [3])]
    refused = cli("show", tmp_path / "run.zarr", "-t", "some", "--sample", 2)
    assert refused.exit_code == 2
    assert "give 1 to 3; some of these did not reach it" in refused.stderr


def test_save(cli, run, tmp_path):
    path = tmp_path / "pool.npy"
    assert cli("show", run.path, "-t", "pool", "--save", path).exit_code == 0
    np.testing.assert_array_equal(np.load(path), run["pool"].values)
    assert cli("show", run.path, "-t", "pool", "--save", path, "--raw").exit_code == 0
    np.testing.assert_array_equal(np.load(path), run["pool"].raw)
    assert cli("show", run.path, "-t", "pool", "--save", path, "--sample", 1).exit_code == 0
    np.testing.assert_array_equal(np.load(path), run["pool"].values[1])


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("-t", "pol"), "near names: pool"),
        (("--sample", "0"), "one tap at a time"),
        (("-t", "pool", "--sample", "6"), "give 0 to 5"),
        (("-t", "pool", "--save", "x.txt"), ".npy"),
        (("-t", "pool", "--save", "/nonexistent/x.npy"), "/nonexistent/x.npy"),
    ],
)
def test_what_cannot_be_shown(cli, run, args, told):
    result = cli("show", run.path, *args)
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_no_run(cli, tmp_path):
    for path in (tmp_path / "none.zarr", tmp_path):
        result = cli("show", path, "--json")
        assert result.exit_code == 2
        assert json.loads(result.stdout)["error"] == "StoreError"
