"""Native log lines."""

from __future__ import annotations

import os

import pytest

from layertap.cli.quiet import without_native_logs


def test_log_lines_go_and_all_else_passes(capfd):
    with without_native_logs():
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called\n")
        os.write(2, b"I0000 00:00:1795258438.577245   16571 port.cc:153] oneDNN\n")
        os.write(2, b"something that matters\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "something that matters\nafterwards\n"


def test_also_when_opening_fails(capfd):
    def fail():
        with without_native_logs():
            os.write(2, b"the reason\n")
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert capfd.readouterr().err == "the reason\n"
