"""Tables at every width."""

from __future__ import annotations

import pytest

from layertap.cli.table import Column, Table, printable, shortened

COLUMNS = (
    Column("#"),
    Column("name", shorten=True),
    Column("op", drop=1),
    Column("bytes", right=True),
    Column("empty"),
)
ROWS = [
    ("#1", "a/rather/long/name/of/a/tensor;and/more", "CONV_2D", "12", ""),
    ("#22", "b", "", "3456", ""),
]


def test_whole_without_a_width():
    head, *lines = Table(COLUMNS, ROWS).lines(None)
    assert head.split() == ["#", "name", "op", "bytes"]
    assert lines[0].split() == ["#1", ROWS[0][1], "CONV_2D", "12"]
    assert lines[1].endswith(" 3456")
    assert lines[0].endswith("   12")


@pytest.mark.parametrize("width", [120, 60, 50, 45, 40])
def test_no_line_is_wider_than_the_terminal(width):
    lines = Table(COLUMNS, ROWS).lines(width)
    assert max(map(len, lines)) <= width


def test_a_long_cell_is_shortened_before_a_column_goes():
    assert "CONV_2D" in Table(COLUMNS, ROWS).lines(50)[1]
    assert "…" in Table(COLUMNS, ROWS).lines(50)[1]
    assert "CONV_2D" not in Table(COLUMNS, ROWS).lines(40)[1]


def test_shortened_keeps_both_ends():
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert shortened("abcdefghij", 4) == "ab…j"
    assert shortened("abc", 3) == "abc"


def test_names_cannot_command_the_terminal():
    lines = Table(COLUMNS, [("#1", "a\x1b[2Jb\nc\u202e", "", "1", "")]).lines(None)
    assert "a?[2Jb?c?" in lines[1]
    assert printable("model/conv/ß…") == "model/conv/ß…"
