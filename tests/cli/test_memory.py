"""layertap memory."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from layertap.demo import asset
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite

FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "ai_edge_litert", "tflite_micro"}

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A model of one operator whose tensors' names are no good markup."""
    tensors = [TensorSpec(HOSTILE, (1, 64), "float32"), TensorSpec("]]>&\x01", (1, 64), "float32")]
    path = tmp_path / "hostile.tflite"
    graph = SubgraphSpec(tensors, [0], [1], [OperatorSpec("RELU", [0], [1])])
    path.write_bytes(write_tflite(graph))
    return path


def test_the_verdict_comes_first(cli, cli_json, int8_model) -> None:
    document = cli_json("memory", int8_model)
    lines = cli("memory", int8_model).stdout.splitlines()
    assert lines[0].startswith(f"arena  {document['arena']['minimum']:,} bytes")
    assert any(line.startswith(f"flash  {int8_model.stat().st_size:,} bytes") for line in lines[:4])
    told = "\n".join(lines)
    assert "alive at the peak, operator" in told
    assert "░" in told
    assert f"head {document['arena']['head']:,} + tail {document['arena']['tail']:,}" in told


def test_the_document_has_everything(cli_json, int8_model) -> None:
    document = cli_json("memory", int8_model)
    arena = document["arena"]
    assert arena["used"] == arena["head"] + arena["tail"] <= arena["minimum"]
    assert arena["head"] - arena["overhead"] == arena["lower_bound"]
    assert document["flash"]["total"] == int8_model.stat().st_size
    tensors = {tensor["name"]: tensor for tensor in document["tensors"]}
    assert tensors["pool"]["home"] == "arena"
    assert tensors["pool"]["bytes"] == 256
    assert tensors["pool"]["alive"][0] < tensors["pool"]["alive"][1]
    planned = [t for t in tensors.values() if t["home"] == "arena"]
    for tensor in planned:
        for native in tensor["shares"]:
            other = next(t for t in planned if t["native"] == native)
            assert tensor["native"] in other["shares"]
            apart = tensor["alive"][1] < other["alive"][0] or other["alive"][1] < tensor["alive"][0]
            assert apart, (tensor["name"], other["name"])
    assert set(arena["peak"]["alive"]) <= {t["name"] for t in planned}
    assert {t["home"] for t in tensors.values()} >= {"arena", "flash"}


def test_tables_of_tensors_and_layers(cli, int8_model) -> None:
    told = cli("memory", int8_model, "--tensors", "--layers", "--no-picture").stdout
    assert "shares bytes with" in told
    assert "probabilities" in told
    assert "flash" in told
    assert "░" not in told


def test_plain_characters_where_there_are_no_others(cli_without, int8_model, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = cli_without([], "memory", int8_model)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "^ peak at" in done.stdout


def test_no_framework_is_needed(cli_without, int8_model) -> None:
    done = cli_without(sorted(FRAMEWORKS), "memory", int8_model, "--target", "cortex-m")
    assert done.returncode == 0, done.stderr
    assert not FRAMEWORKS & set(done.stderr.split("LOADED")[1].split())


def test_a_board_sets_the_target_and_the_exit_status(cli, cli_json, int8_model, tmp_path) -> None:
    document = cli_json("memory", int8_model, "--board", "Sparkfun-Edge")
    assert document["board"]["fits"]
    assert document["target"] == "cortex-m"
    assert cli("memory", int8_model, "--board", "sparkfun-edge").exit_code == 0
    small = tmp_path / "small.toml"
    small.write_text(
        'name = "Small"\ntarget = "ilp32"\n[place]\nmodel = "flash"\narena = "ram"\n'
        '[memory.flash]\nkind = "flash"\nbytes = 1000\n[memory.ram]\nkind = "ram"\nbytes = "64KiB"'
    )
    result = cli("memory", int8_model, "--board", small)
    assert result.exit_code == 1
    missing = int8_model.stat().st_size - 1000
    first = result.stdout.splitlines()[0]
    assert first == f"does not fit Small: {missing:,} bytes are missing in flash"
    result = cli("memory", int8_model, "--board", small, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["board"]["fits"] is False


def test_a_board_that_is_not_known(cli, int8_model) -> None:
    result = cli("memory", int8_model, "--board", "sparkfun")
    assert result.exit_code == 2
    assert "near names: sparkfun-edge" in result.stderr


def test_the_list_of_boards(cli, cli_json) -> None:
    assert "arduino-nano-33-ble-sense" in cli("memory", "--boards").stdout
    boards = cli_json("memory", "--boards")["boards"]
    assert boards["raspberry-pi-pico"]["regions"][1]["bytes"] == 262_144


def test_pictures_are_written(cli_json, hostile, tmp_path) -> None:
    paths = [tmp_path / name for name in ("a.svg", "f.svg", "p.html")]
    options = ("--svg", paths[0], "--flash-svg", paths[1], "--html", paths[2])
    document = cli_json("memory", hostile, *options)
    assert document["written"] == [str(path) for path in paths]
    for path in paths[:2]:
        ElementTree.fromstring(path.read_bytes())
    for path in paths:
        assert "<script" not in path.read_text("utf-8")


def test_pictures_replace_neither_the_model_nor_one_another(cli, hostile, tmp_path) -> None:
    before = hostile.read_bytes()
    log = tmp_path / "device.log"
    log.write_text("")
    for options, told in (
        (("--svg", hostile), "is the model itself"),
        (("--html", tmp_path / "." / hostile.name), "is the model itself"),
        (("--log", log, "--svg", log), "is the log itself"),
        (("--svg", tmp_path / "a", "--flash-svg", tmp_path / "a"), "is what --svg writes, too"),
    ):
        result = cli("memory", hostile, *options)
        assert result.exit_code == 2
        assert told in result.stderr
    assert hostile.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device.log", hostile.name]


def test_names_do_not_reach_the_terminal_raw(cli, hostile) -> None:
    assert "\x01" not in cli("memory", hostile, "--tensors").stdout


def test_two_models(cli, cli_json, int8_model) -> None:
    floats = asset("digits_float.tflite")
    document = cli_json("memory", floats, int8_model)
    totals = {change["name"]: change for change in document["arena"]}
    a, b = (cli_json("memory", path)["arena"] for path in (floats, int8_model))
    assert totals["smallest arena"]["before"] == a["minimum"]
    assert totals["smallest arena"]["growth"] == b["minimum"] - a["minimum"]
    assert totals["activations"]["growth"] == b["head"] - a["head"] < 0
    assert document["layers"]
    told = cli("memory", floats, int8_model).stdout
    assert told.startswith(f"arena {b['minimum'] - a['minimum']:+,} bytes")
    assert "peak: operator" in told
    assert cli("memory", floats, floats).stdout.startswith("both need the same memory")


def test_two_models_and_a_board(cli, int8_model) -> None:
    result = cli("memory", int8_model, int8_model, "--board", "sparkfun-edge")
    assert result.exit_code == 2
    assert "--board is about one model" in result.stderr


def test_a_log(cli, cli_json, int8_model, tmp_path) -> None:
    predicted = cli_json("memory", int8_model)["arena"]
    log = tmp_path / "device.log"
    log.write_text(
        f"I (31) tf: Arena allocation total {predicted['used'] + 96} bytes\r\n"
        f"I (32) tf: Arena allocation head {predicted['head']} bytes\r\n"
        f"I (33) tf: Arena allocation tail {predicted['tail'] + 96} bytes\r\n"
    )
    document = cli_json("memory", int8_model, "--log", log)
    rows = {row["name"]: row for row in document["measured"]["rows"]}
    assert rows["tail"] == {
        "name": "tail",
        "predicted": predicted["tail"],
        "measured": predicted["tail"] + 96,
    }
    assert document["arena"]["used"] == predicted["used"] + 96
    assert "+96" in cli("memory", int8_model, "--log", log).stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ((), "Missing argument 'MODEL'"),
        (("none.tflite",), "none.tflite"),
        (("--target", "avr", "x.tflite"), "'avr' is not one of"),
    ],
)
def test_wrong_calls(cli, args, told: str) -> None:
    result = cli("memory", *args)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_log_that_is_not_there_and_one_of_something_else(cli, int8_model, tmp_path) -> None:
    result = cli("memory", int8_model, "--log", tmp_path / "none.log")
    assert result.exit_code == 2
    assert "No such file" in result.stderr
    (tmp_path / "noise.log").write_bytes(b"\xff\xfe hello")
    result = cli("memory", int8_model, "--log", tmp_path / "noise.log")
    assert result.exit_code == 2
    assert "says nothing about an arena" in result.stderr
