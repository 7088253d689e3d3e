"""Tables at every width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.cli.table import Column, Table, printable, shortened, told_apart
from layertap.cli.taps import HEARD_COLUMNS, SUMMARY_COLUMNS, TAP_COLUMNS

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


RELU = "model/activation/Relu;model/bn/Fused;model/conv2d/BiasAdd;model/conv2d/Conv2D"


def test_of_joined_names_the_first_is_shown_and_how_many_more():
    assert told_apart([RELU, "b"], 40) == ["model/activation/Relu +3", "b"]
    assert told_apart([RELU], 24) == ["model/activation/Relu +3"]
    assert told_apart([RELU], 14) == ["model…/Relu +3"]
    assert told_apart([RELU], 100) == [RELU]


def test_names_that_would_look_alike_are_told_apart():
    pair = [RELU, f"{RELU}1"]
    assert told_apart(pair, 24) == ["model/a…on/Relu…d/Conv2D", "model/a…on/Relu…/Conv2D1"]
    long = [f"model/block_{i}/expand/{'x' * 40}/project/BN" for i in range(3)]
    shown = told_apart(long, 24)
    assert len(set(shown)) == 3
    assert all(f"_{i}/" in text for i, text in enumerate(shown))
    assert told_apart([RELU, RELU], 24) == ["model/activation/Relu +3"] * 2


@given(st.lists(st.text("ab/;", max_size=60), max_size=6), st.integers(16, 50))
def test_shortened_names_fit_and_whole_ones_are_as_they_are(texts, width):
    for text, shown in zip(texts, told_apart(texts, width), strict=True):
        assert len(shown) <= width
        assert len(text) > width or shown == text


@pytest.mark.parametrize("width", [60, 50, 40, 20])
def test_the_number_stays_on_the_narrowest_terminal(width):
    for columns in (TAP_COLUMNS, SUMMARY_COLUMNS, HEARD_COLUMNS):
        rows = [["#1", RELU] + ["x" * 8] * (len(columns) - 2)]
        assert Table(columns, rows).lines(width)[1].split()[0] == "#1"


def test_without_a_terminal_all_columns_are_there_and_rows_have_an_end(capsys):
    rows = [("#1", RELU * 4, "CONV_2D", "12", "")]
    Table(COLUMNS, rows).show()
    out, err = capsys.readouterr()
    line = out.splitlines()[1]
    assert line.split() == ["#1", "model/activation/Relu", "+12", "CONV_2D", "12"]
    assert len(line) < 80
    assert err == "(name cut; --wide shows everything)\n"
    Table(COLUMNS, rows).show(wide=True)
    out, err = capsys.readouterr()
    assert RELU * 4 in out
    assert err == ""
