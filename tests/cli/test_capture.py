"""layertap capture."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import layertap
from layertap.demo import digits


def test_a_summary_of_each_layer(cli_json, int8_model, digits_file):
    document = cli_json("capture", int8_model, "-i", digits_file, "--runtime", "tflm")
    assert document["run"] is None
    assert document["samples"] == 32
    with layertap.open(int8_model, "tflm") as model:
        run = model.capture(digits().image)
    assert [tap["name"] for tap in document["taps"]] == list(run)
    for tap in document["taps"]:
        values = run[tap["name"]].values.astype(np.float64)
        summary = tap["summary"]
        assert tap["rows"] == 32
        assert summary["min"] == values.min()
        assert summary["max"] == values.max()
        assert summary["mean"] == pytest.approx(values.mean(), rel=1e-9)
        assert summary["std"] == pytest.approx(values.std(), rel=1e-9)
        assert summary["zeros"] == np.count_nonzero(values == 0)
        assert summary["not_finite"] == 0


def test_onto_disk(cli, int8_model, digits_file, tmp_path):
    path = tmp_path / "run.zarr"
    args = ("capture", int8_model, "-t", "pool", "-i", digits_file, "-o", path)
    result = cli(*args, "--runtime", "tflm", "--batch-size", 5, "--keep-inputs")
    assert result.exit_code == 0, result.output
    assert f"layertap show {path}" in result.stdout
    run = layertap.load(path)
    with layertap.open(int8_model, "tflm") as model:
        wanted = model.capture(digits().image, "pool")
    assert set(run) == {"pool", "image"}
    assert run.complete
    np.testing.assert_array_equal(run["pool"].raw, wanted["pool"].raw)


def test_an_existing_run_and_a_foreign_folder_are_left_alone(
    cli, int8_model, digits_file, tmp_path
):
    path = tmp_path / "run.zarr"
    args = ("capture", int8_model, "-t", "pool", "-i", digits_file, "--runtime", "tflm", "-o")
    assert cli(*args, path).exit_code == 0
    again = cli(*args, path)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert cli(*args, path, "--overwrite").exit_code == 0
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.txt").write_text("two years of work")
    refused = cli(*args, foreign, "--overwrite")
    assert refused.exit_code == 2
    assert (foreign / "chapter.txt").read_text() == "two years of work"


def test_the_plan_tells_exact_bytes_without_running(cli_json, int8_model):
    args = ("capture", int8_model, "--random", 0, "--samples", 10, "--plan")
    plan = cli_json(*args, "-t", "pool", "-t", "logits")
    assert plan["sample_bytes"] == 256 + 10
    assert plan["total_bytes"] == 10 * (256 + 10)
    with_inputs = cli_json(*args, "-t", "pool", "--keep-inputs")
    assert with_inputs["total_bytes"] == 10 * (256 + 64)


def test_a_budget_refuses(cli, int8_model):
    args = ("capture", int8_model, "--random", 0, "--samples", 10, "-t", "pool", "--json")
    result = cli(*args, "--budget", "2KB")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document["error"] == "BudgetExceeded"
    assert "2,560 bytes" in document["message"]


def test_what_does_not_fit_in_memory_is_refused_at_once(cli, int8_model):
    result = cli("capture", int8_model, "--random", 0, "--samples", 10**8)
    assert result.exit_code == 2
    assert "-o RUN.zarr" in result.stderr


def test_random_inputs_are_the_same_each_time(cli_json, int8_model):
    args = ("capture", int8_model, "-t", "pool", "--runtime", "tflm", "--samples", 7)
    first = cli_json(*args, "--random", 3, "--batch-size", 2)
    second = cli_json(*args, "--random", 3)
    other = cli_json(*args, "--random", 4)
    assert first["taps"][0]["summary"]["mean"] == pytest.approx(
        second["taps"][0]["summary"]["mean"], rel=1e-12
    )
    assert first["taps"][0]["summary"] != other["taps"][0]["summary"]


def test_wrong_shape(cli, int8_model, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((3, 9, 8, 1), np.float32))
    result = cli("capture", int8_model, "-i", path)
    assert result.exit_code == 2
    assert "3x9x8x1" in result.stderr
    assert "8x8x1" in result.stderr


def test_no_input(cli, int8_model):
    result = cli("capture", int8_model)
    assert result.exit_code == 2
    assert "--random SEED" in result.stderr


def test_options_of_the_runtime(cli, cli_json, int8_model):
    args = ("capture", int8_model, "--random", 0, "-t", "pool")
    document = cli_json(*args, "--kernels", "reference")
    assert document["provenance"]["kernels"] == "reference"
    document = cli_json(
        *args, "--runtime", "tflm", "--arena", "64KiB", "--option", "keep_state=True"
    )
    assert document["provenance"]["arena"] == 64 << 10
    assert document["provenance"]["keep_state"] is True
    assert cli(*args, "--option", "nonsense").exit_code == 2
    unknown = cli(*args, "--option", "nonsense=1")
    assert unknown.exit_code == 2
    assert "nonsense" in unknown.stderr


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_inputs.py").write_text(
        "import numpy as np\n"
        "ones = [np.ones((2, 8, 8, 1), np.float32)] * 3\n"
        "def batches():\n    yield from ones\n"
        "def broken():\n    yield ones[0]\n    raise ValueError('no more')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield "my_inputs"
    sys.modules.pop("my_inputs", None)


def test_batches_from_the_users_code(cli, cli_json, int8_model, module):
    args = ("capture", int8_model, "-t", "pool", "--runtime", "tflm", "-i")
    assert cli_json(*args, f"{module}:batches")["samples"] == 6
    assert cli_json(*args, f"{module}:ones")["samples"] == 6
    broken = cli(*args, f"{module}:broken")
    assert broken.exit_code == 2
    assert "failed in batch 2: ValueError: no more" in broken.stderr
    number = cli(*args, f"{module}:number")
    assert number.exit_code == 2
    assert "does not yield batches" in number.stderr


def test_the_progress_bar_draws_on_standard_error_only(cli, int8_model):
    args = ("capture", int8_model, "-t", "pool", "--random", 0, "--samples", 64)
    result = cli(*args, "--progress")
    assert result.exit_code == 0, result.output
    assert "capturing: 32 of 64 samples" in result.stderr
    assert "capturing" not in result.stdout
    assert "capturing" not in cli(*args).stderr
