"""Warnings are lines on standard error."""

from __future__ import annotations

import logging

import pytest

from layertap.cli.warned import showing_warnings


def test_a_warning_is_one_line_and_goes_nowhere_else(capsys, caplog):
    log = logging.getLogger("layertap.core.inputs")
    with showing_warnings():
        log.warning("half of %r\nis clipped\x1b[2J", "x")
        log.info("nothing to worry about")
    assert capsys.readouterr().err == "warning: half of 'x'?is clipped?[2J\n"
    assert caplog.records == []
    log.warning("afterwards")
    assert len(caplog.records) == 1


def test_what_a_board_prints_is_shown_by_who_listens_to_it(capsys):
    device = logging.getLogger("layertap.device")
    shown = logging.NullHandler()
    device.addHandler(shown)
    try:
        with showing_warnings():
            device.warning("lost a frame")
    finally:
        device.removeHandler(shown)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_clipped_inputs_are_told(cli, int8_model, digits_file, as_json):
    args = ("capture", int8_model, "-i", digits_file, "-t", "pool", "--runtime", "tflm")
    result = cli(*args, "--scale", "300/1", *as_json)
    assert result.exit_code == 0, result.output
    assert "warning: the input 'image': 52.4 % of the first" in result.stderr
    assert "warning" not in result.stdout
    assert "warning" not in cli(*args, *as_json).stderr
