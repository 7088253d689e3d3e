"""``layertap listen``, and a board in ``layertap capture``."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boardmodel
import numpy as np
import pytest
import testboard
from click.testing import Result
from testboard import Fault, Orders

import layertap
from layertap.cli.show import provenance_lines

pytestmark = pytest.mark.slow  # starts boards

Invoke = Callable[..., Result]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.tflite").write_bytes(boardmodel.MODEL)
    return tmp_path / "model.tflite"


@pytest.fixture
def stream(board: testboard.Board, tmp_path: Path) -> Path:
    """Six inferences of a board that prints; the second is damaged."""
    faults = [Fault("drop-byte", 60, 9)]
    orders = Orders(able=0, receive=0, runs=6, chatter=True, faults=faults)
    with (tmp_path / "stream.bin").open("wb") as file:
        command = board.command(boardmodel.MODEL, orders)
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, check=True, timeout=30)
    return tmp_path / "stream.bin"


def test_records_and_tells_what_was_lost(cli: Invoke, model: Path, stream: Path) -> None:
    run = model.parent / "run.zarr"
    result = cli("listen", stream, "-m", model, "-t", "row | scalar", "-o", run)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"5 samples of 2 taps in {run}"
    assert lines[1] == "1 inference dropped, not whole (1 frames lost, 1 frames damaged)"
    assert "layertap show" in lines[2]
    assert "board: booting" in result.stderr
    assert layertap.load(run).samples == 5
    again = cli("listen", stream, "-m", model, "-t", "row | scalar", "-o", run)
    assert again.exit_code == 2
    assert "--resume" in again.stderr
    more = ("-o", run, "--resume", "--samples", 8)
    assert cli("listen", stream, "-m", model, "-t", "row | scalar", *more).exit_code == 0
    assert layertap.load(run).samples == 8


def test_json_of_a_recording(cli_json: Callable[..., Any], model: Path, stream: Path) -> None:
    run = model.parent / "run.zarr"
    document = cli_json("listen", stream, "-m", model, "-t", "row", "-o", run)
    assert (document["samples"], document["complete"], document["run"]) == (5, True, str(run))
    assert document["provenance"]["observed"]["dropped"] == 1
    assert [tap["name"] for tap in document["taps"]] == ["row"]


def test_shows_each_inference_without_a_place(cli: Invoke, model: Path, stream: Path) -> None:
    result = cli("listen", stream, "-m", model, "-t", "row | s2/body/doubled", "--samples", 3)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line for line in lines if line.startswith("inference")] == [
        "inference 0",
        "inference 2",
        "inference 3",
    ]
    row = next(line.split() for line in lines if " row " in line)
    assert row[1:] == ["row", "float32", "1x24", "-3", "3", "-0.25"]
    assert (
        lines[-1]
        == "3 inferences; 1 inference dropped, not whole (1 frames lost, 1 frames damaged)"
    )


def test_json_of_a_look(cli: Invoke, model: Path, stream: Path) -> None:
    result = cli("listen", stream, "-m", model, "-t", "row", "--samples", 4, "--json")
    document = json.loads(result.stdout)
    assert (document["samples"], document["port"]) == (4, str(stream))
    (tap,) = document["taps"]
    assert (tap["summary"]["min"], tap["summary"]["max"]) == (-3, 3)
    assert tap["summary"]["finite"] == 4 * 24


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--json",), "--samples N"),
        (("--resume",), "-o RUN.zarr"),
        (("--overwrite",), "-o RUN.zarr"),
        (("-o", "run.zarr", "--samples", "1", "-t", "conv"), "no tap point matches"),
        (("--slices", "0:2", "--slices", "row=0:1", "--samples", "1"), "without a selector"),
        (("--reduce", "row=median", "--samples", "1"), "no reduction"),
    ],
)
def test_what_is_refused(
    cli: Invoke, model: Path, stream: Path, args: tuple[str, ...], said: str
) -> None:
    result = cli("listen", stream, "-m", model, *args)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_port_that_is_not_there(cli: Invoke, model: Path) -> None:
    result = cli("listen", "/dev/ttyNONE9", "-m", model)
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first == "error: there is no port /dev/ttyNONE9"
    assert second.startswith("hint: plug the board in")


def test_standard_input(board: testboard.Board, model: Path, stream: Path) -> None:
    command = [sys.executable, "-m", "layertap", "listen", "-", "-m", str(model)]
    with stream.open("rb") as file:
        done = subprocess.run(
            [*command, "-t", "row", "--json", "--samples", "5"],
            stdin=file,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 5


def endless(board: testboard.Board) -> str:
    command = board.command(boardmodel.MODEL, Orders(able=0, receive=0, pause=20))
    return "exec:" + shlex.join(command)


def test_ctrl_c_leaves_a_run_that_is_appended_to(
    board: testboard.Board, model: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    arguments = ["listen", endless(board), "-m", str(model), "-t", "row", "-o", "run.zarr"]
    process = start(*arguments)
    journal = model.parent / "run.zarr" / "sample" / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        assert time.monotonic() < deadline, process.communicate(timeout=5)
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    run = layertap.load(model.parent / "run.zarr")
    assert f"interrupted: {run.samples} samples in run.zarr, which is valid" in said
    assert any("layertap listen ... --resume" in line for line in provenance_lines(run))
    assert said.rstrip().endswith("--resume")
    command = [*arguments, "--resume", "--samples", str(run.samples + 2)]
    subprocess.run(
        [sys.executable, "-m", "layertap", *command], cwd=model.parent, check=True, timeout=60
    )
    assert layertap.load(model.parent / "run.zarr").samples == run.samples + 2


def test_a_live_table_on_a_terminal(board: testboard.Board, model: Path) -> None:
    near, far = pty.openpty()
    command = [sys.executable, "-m", "layertap", "listen", endless(board), "-m", str(model)]
    process = subprocess.Popen(
        [*command, "-t", "row", "--samples", "4"],
        stdout=far,
        stderr=far,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "90"},
    )
    os.close(far)
    shown = b""
    try:
        while data := os.read(near, 1 << 16):
            shown += data
    except OSError:
        assert shown, "the terminal closes with the program"
    os.close(near)
    assert process.wait(60) == 0
    assert b"inference 3" in shown
    assert b"4 inferences" in shown


def test_capture_drives_a_board(cli: Invoke, board: testboard.Board, model: Path) -> None:
    port = "exec:" + shlex.join(board.command(boardmodel.MODEL, Orders(chatter=True)))
    np.savez(model.parent / "x.npz", **boardmodel.FEED)
    run = model.parent / "run.zarr"
    args = ("capture", model, "--port", port, "-i", model.parent / "x.npz")
    forms = ("--reduce", "row=summary", "--slices", "cast/*float*=0:4", "--timeout", 5)
    result = cli(*args, "-t", "row | cast/float32", *forms, "-o", run, "-v")
    assert result.exit_code == 0, result.output
    assert "board: booting" in result.stderr
    loaded = layertap.load(run)
    assert loaded.provenance["runtime"] == "device"
    assert loaded["row"].raw.shape == (1, 3)
    assert loaded["cast/float32"].raw.shape == (1, 4)
    quiet = cli(*args, "-t", "row")
    assert quiet.exit_code == 0
    assert "board:" not in quiet.stderr


def test_ls_knows_what_a_board_can_read(cli: Invoke, model: Path) -> None:
    result = cli("ls", model, "--runtime", "device", "-t", "s2/body/doubled")
    assert result.exit_code == 0, result.output
    assert "?x2x3x4" in result.stdout
    refused = cli("capture", model, "--runtime", "device", "--random", 0)
    assert refused.exit_code == 2
    assert "--port /dev/ttyACM0" in refused.stderr
