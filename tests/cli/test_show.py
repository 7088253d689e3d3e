"""layertap show."""

from __future__ import annotations

import json

import numpy as np
import pytest

import layertap
from layertap.demo import asset, digits


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
