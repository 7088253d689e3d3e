"""layertap demo."""

from __future__ import annotations

import numpy as np
import pytest

import layertap

pytestmark = pytest.mark.slow

TAPS = [
    "stem_relu", "depthwise_relu", "pointwise_norm", "add_relu",
    "pool", "flatten", "logits", "probabilities",
]  # fmt: skip


def test_every_layer_in_both_runtimes_and_twice(cli, cli_json, tmp_path):
    folder = tmp_path / "demo"
    text = cli("demo", folder)
    assert text.exit_code == 0, text.output
    assert f"layertap show {folder}" in text.stdout
    assert "run = layertap.load(" in text.stdout
    document = cli_json("demo", folder)
    assert document["missing"] == {}
    assert [run["name"] for run in document["runs"]][-1] == "digits_int8-tflm"
    for told in document["runs"]:
        assert [tap["name"] for tap in told["taps"]] == TAPS
        assert told["right"] >= 30
        run = layertap.load(told["run"])
        assert run.complete
        assert run.samples == 32


def test_the_micro_kernels_agree_with_the_reference_kernels(cli_json, tmp_path):
    document = cli_json("demo", tmp_path)
    assert set(document["differ_from_tflm"]["digits_int8-litert-reference"].values()) == {0.0}
    micro = layertap.load(tmp_path / "digits_int8-tflm.zarr")
    fast = layertap.load(tmp_path / "digits_int8-litert.zarr")
    for name, share in document["differ_from_tflm"]["digits_int8-litert"].items():
        assert share == np.mean(micro[name].raw != fast[name].raw)


def test_one_runtime_is_enough(cli_without, tmp_path):
    done = cli_without(["tflite_micro", "tensorflow", "keras", "torch"], "demo", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pip install 'layertap[tflm]'" in done.stdout
    assert (tmp_path / "digits_int8-litert.zarr").is_dir()


def test_no_runtime_is_too_few(cli_without, tmp_path):
    done = cli_without(["tflite_micro", "ai_edge_litert"], "demo", tmp_path)
    assert done.returncode == 2
    assert "layertap[litert,tflm]" in done.stderr
