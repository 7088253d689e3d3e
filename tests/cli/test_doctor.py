"""layertap doctor."""

from __future__ import annotations

from typing import NamedTuple

import pytest

import layertap

pytestmark = pytest.mark.slow  # starts every runtime


class Port(NamedTuple):
    device: str
    description: str = "a board"


def test_it_starts_the_runtimes_and_the_store(cli_json):
    findings = {one["name"]: one for one in cli_json("doctor")["findings"]}
    assert findings["layertap"]["detail"] == layertap.__version__
    assert findings["store"]["state"] == "ok"
    for runtime in ("litert", "tflm"):
        assert findings[runtime]["state"] == "ok", findings[runtime]
        assert "runs the demo's model" in findings[runtime]["detail"]


def test_it_tells_about_boards(cli_json, monkeypatch, tmp_path):
    tool = tmp_path / "arm-none-eabi-g++"
    tool.write_text("#!/bin/sh\necho 'arm-none-eabi-g++ (for tests) 1.2'\necho more\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    port = tmp_path / "ttyACM0"
    port.touch()
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: [Port(str(port))])
    findings = {one["name"]: one for one in cli_json("doctor")["findings"]}
    assert findings["device"]["state"] == "ok"
    assert findings["arm-none-eabi-g++"]["detail"] == "arm-none-eabi-g++ (for tests) 1.2"
    assert findings[str(port)]["detail"] == "a board"
    assert "qemu-system-arm" not in findings


def test_what_is_missing_comes_with_the_line_that_installs_it(cli_without):
    done = cli_without(["torch", "tflite_micro", "ai_edge_litert"], "doctor")
    assert done.returncode == 0, done.stderr
    assert "pip install 'layertap[torch]'" in done.stdout
    assert "pip install 'layertap[tflm]'" in done.stdout
    assert "missing litert" in " ".join(done.stdout.split())


def test_a_broken_base_fails(cli_without):
    done = cli_without(["numcodecs", "tflite_micro", "ai_edge_litert"], "doctor")
    assert done.returncode == 2
    assert "numcodecs" in done.stdout
