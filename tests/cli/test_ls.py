"""layertap ls."""

from __future__ import annotations

import sys

import pytest

FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "ai_edge_litert", "tflite_micro"}


def test_it_lists_every_tap_point_in_order(cli_json, int8_model):
    document = cli_json("ls", int8_model)
    computed = [tap["name"] for tap in document["taps"] if tap["kind"] in ("activation", "output")]
    assert computed == [
        "stem_relu", "depthwise_relu", "pointwise_norm", "add_relu",
        "pool", "flatten", "logits", "probabilities",
    ]  # fmt: skip
    pool = next(tap for tap in document["taps"] if tap["name"] == "pool")
    assert (pool["shape"], pool["dtype"], pool["bytes"]) == ([1, 4, 4, 16], "int8", 256)
    assert pool["quantization"]["zero_points"] == [-128]
    assert document["complete"]


def test_selectors_and_kinds(cli_json, int8_model):
    def names(*args):
        return [tap["name"] for tap in cli_json("ls", int8_model, *args)["taps"]]

    assert names("-t", "op:CONV_2D") == ["stem_relu", "pointwise_norm"]
    assert names("-t", "pool", "-t", "#17") == ["pool", "probabilities"]
    assert names("--kind", "input", "--kind", "output") == ["image", "probabilities"]
    assert names("-t", "*relu", "--kind", "activation") == [
        "stem_relu", "depthwise_relu", "add_relu",
    ]  # fmt: skip


def test_bytes_add_up(cli_json, cli, int8_model):
    document = cli_json("ls", int8_model, "-t", "*relu")
    assert document["bytes"] == 3 * 1024
    assert "3,072 bytes (3 KiB) a sample" in cli("ls", int8_model, "-t", "*relu").stdout


def test_piped_rows_have_all_columns_and_an_end(cli, shared):
    path = shared / "models/mlperf-tiny/resnet_int8.tflite"
    result = cli("ls", path)
    head, *rows, _ = result.stdout.splitlines()
    assert head.split()[:3] == ["#", "name", "kind"]
    assert max(map(len, rows)) < 140
    assert len({row.split("  ")[1] for row in rows}) > 1
    assert result.stderr == "(name cut; --wide shows everything)\n"
    whole = cli("ls", path, "--wide")
    assert "model/activation/Relu;model/batch_normalization/FusedBatchNormV3;" in whole.stdout
    assert "…" not in whole.stdout
    assert whole.stderr == ""
    assert "\x1b" not in result.stdout + whole.stdout


def test_one_is_one(cli, int8_model):
    assert cli("ls", int8_model, "-t", "pool").stdout.endswith("1 tap point, 256 bytes a sample\n")


def test_no_framework_is_imported(cli_without, int8_model):
    done = cli_without([], "ls", int8_model)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.split("LOADED")[1].split())
    assert "numpy" in loaded
    assert not FRAMEWORKS & loaded


def test_nothing_needs_to_be_installed_for_a_tflite_file(cli_without, int8_model):
    done = cli_without(sorted(FRAMEWORKS), "ls", int8_model)
    assert done.returncode == 0, done.stderr
    assert "probabilities" in done.stdout


def test_a_typo_gets_near_names(cli, int8_model):
    result = cli("ls", int8_model, "-t", "stem_rleu")
    assert result.exit_code == 2
    assert "near names: stem_relu" in result.stderr


def test_a_kind_that_is_not_there(cli, int8_model):
    result = cli("ls", int8_model, "--kind", "state")
    assert result.exit_code == 2
    assert "there is input, activation, output, weight" in result.stderr


@pytest.mark.slow
def test_a_live_model_needs_an_example(cli, cli_json, tmp_path, monkeypatch):
    (tmp_path / "ls_net.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Linear(3, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    result = cli("ls", "ls_net:net")
    assert result.exit_code == 0, result.output
    assert "--random SEED" in result.stderr
    document = cli_json("ls", "ls_net:net", "--random", 0, "--shape", "3")
    assert document["complete"]
    assert next(tap for tap in document["taps"] if tap["name"] == "0")["shape"][-1] == 2


@pytest.mark.parametrize(
    ("reference", "told"),
    [("nosuchmodule_x:net", "cannot import"), ("json:nothing", "has no 'nothing'")],
)
def test_a_wrong_reference(cli, reference, told):
    result = cli("ls", reference)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_runtime_that_knows_no_operations_says_so(cli, int8_model):
    done = cli("ls", int8_model, "--depth", "ops")
    assert done.exit_code == 2
    assert "takes no such option" in done.stderr
    assert "depth" in done.stderr
