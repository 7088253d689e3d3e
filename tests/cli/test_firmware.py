"""layertap firmware."""

from __future__ import annotations

import shlex

import pytest

from layertap.cli.firmware import PLATFORMS, RULES
from layertap.firmware.generate import platforms
from layertap.onchip import RULES as LIBRARY_RULES
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite


def test_the_folder_is_told(cli, int8_model, tmp_path):
    result = cli("firmware", int8_model, "-t", "pool", "--platform", "pico", "-o", tmp_path / "fw")
    assert result.exit_code == 0
    assert "arena     " in result.stdout
    assert "operators ADD, CONV_2D" in result.stdout
    assert "sends     1 of 9 taps" in result.stdout
    assert "written   CMakeLists.txt" in result.stdout
    assert "--port /dev/ttyACM0" in result.stdout
    again = cli("firmware", int8_model, "-t", "pool", "--platform", "pico", "-o", tmp_path / "fw")
    assert "unchanged all 11 files" in again.stdout


def test_what_is_not_known_of_the_arena_is_told(cli, cli_json, int8_model, tmp_path):
    told = cli("firmware", int8_model, "--platform", "esp-idf", "-o", tmp_path / "fw").stdout
    assert "unknown   what the esp_nn kernels of ADD, CONV_2D" in told
    words = ["--platform", "esp-idf", "--kernels", "reference", "-o", tmp_path / "fw"]
    assert "unknown" not in cli("firmware", int8_model, *words).stdout
    assert cli_json("firmware", int8_model, *words)["arena_guessed"] == []


def test_what_comes_next_depends_on_who_drives_the_board(cli, int8_model, tmp_path):
    fixed = cli("firmware", int8_model, "-t", "pool", "--fixed", "-o", tmp_path / "a")
    assert f"listen exec:{tmp_path}/a/build/firmware -m" in fixed.stdout
    outputs = cli("firmware", int8_model, "-t", "pool", "--outputs", "-o", tmp_path / "b")
    assert outputs.stdout.endswith(f"next      {tmp_path}/b/README.md\n")


@pytest.mark.parametrize(
    ("platform", "built"), [("generic", "firmware"), ("qemu-mps2", "firmware.elf")]
)
def test_what_comes_next_works_from_here(cli, int8_model, tmp_path, platform, built):
    folder = tmp_path / "my board"
    told = cli("firmware", int8_model, "--platform", platform, "-o", folder).stdout
    words = shlex.split(told.rpartition(", then ")[2])
    port = words[words.index("--port") + 1]
    assert shlex.split(port.removeprefix("exec:"))[-1] == str(folder / "build" / built)


def test_json(cli_json, int8_model, tmp_path):
    document = cli_json("firmware", int8_model, "--fixed", "-t", "pool", "-o", tmp_path / "fw")
    assert document["folder"] == str(tmp_path / "fw")
    assert document["platform"] == "generic"
    assert document["taps"] == ["pool"]
    assert document["written"] == document["files"]
    assert document["arena"] > 0


def test_changed_files_are_told_and_kept(cli, int8_model, tmp_path):
    folder = tmp_path / "fw"
    cli("firmware", int8_model, "-o", folder)
    (folder / "wire_port.cpp").write_text("mine")
    result = cli("firmware", int8_model, "-o", folder)
    assert "left      wire_port.cpp" in result.stdout
    (folder / "main.cpp").write_text("mine")
    refused = cli("firmware", int8_model, "-o", folder)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert cli("firmware", int8_model, "-o", folder, "--overwrite").exit_code == 0
    assert (folder / "main.cpp").read_text() != "mine"


def test_ones_own_operator_is_named(cli, tmp_path):
    tensors = [TensorSpec("x", (1, 4)), TensorSpec("y", (1, 4))]
    own = SubgraphSpec(tensors, [0], [1], [OperatorSpec("Mine", [0], [1])])
    (tmp_path / "own.tflite").write_bytes(write_tflite(own))
    result = cli("firmware", tmp_path / "own.tflite", "--arena", "4K", "-o", tmp_path / "fw")
    assert "Mine: write layertap_register_mine()" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-t", "pol"], "near names: pool"),
        (["--fixed"], "--taps conv*"),
        (["--platform", "avr"], "'--platform'"),
        (["--rules", "300"], "--rules"),
        (["--arena", "much"], "as '96K'"),
    ],
)
def test_mistakes(cli, int8_model, tmp_path, arguments, said):
    result = cli("firmware", int8_model, *arguments, "-o", tmp_path / "fw")
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "fw").exists()


def test_the_command_line_knows_what_the_library_knows():
    assert list(platforms.PLATFORMS) == list(PLATFORMS)
    assert RULES == LIBRARY_RULES
