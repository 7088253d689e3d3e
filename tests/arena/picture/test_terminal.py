from __future__ import annotations

import pytest

from layertap.arena.picture.terminal import AXIS, ROWS, terminal_picture

GAP = [("a", 400, 0, 1, 0), ("b", 800, 1, 2, 800), ("c", 400, 2, 2, 0)]


def test_what_is_alive_at_the_peak_is_in_letters(make_map) -> None:
    found = terminal_picture(make_map(GAP), 60)
    assert found.letters == {"a": "B", "b": "A"}
    plot = [line[AXIS:] for line in found.lines[:ROWS]]
    assert plot[0] == " " * 6 + "A" * 12  # b, steps 1 and 2, at the top
    assert plot[7] == plot[0]
    assert plot[8] == ""  # the gap between a and b
    assert plot[-1] == "B" * 12 + "░" * 6  # a, then c in its bytes
    assert "peak at operator 0 CONV_2D, 1,200 bytes alive" in found.lines[-1]


def test_the_arrow_stands_below_the_peak(chain) -> None:
    lines = terminal_picture(chain, 80).lines
    column = lines[-1].index("▲") - AXIS
    assert 12 <= column < 18  # step 2 of four, six columns each


@pytest.mark.parametrize("width", [30, 60, 200])
@pytest.mark.parametrize("count", [1, 3, 50, 2000])
@pytest.mark.parametrize("plain", [True, False])
def test_it_fits_the_width(make_map, width: int, count: int, plain: bool) -> None:
    rows = [(f"t{i}", 64, i, min(i + 1, count - 1), 64 * (i % 2)) for i in range(count)]
    found = terminal_picture(make_map(rows), width, plain=plain)
    assert max(len(line) for line in found.lines[:-1]) <= width
    if plain:
        assert all(line.isascii() for line in found.lines)


def test_neighbours_have_different_shades(make_map) -> None:
    rows = [("in", 160, 0, 0, 0), ("big", 1600, 1, 1, 0)]
    rows += [(f"t{i}", 400, 2 + i // 2, 2 + i // 2, 400 * (i % 2)) for i in range(8)]
    lines = terminal_picture(make_map(rows), 100, plain=True).lines
    upper, lower = lines[ROWS - 5][AXIS:], lines[ROWS - 1][AXIS:]
    pairs = {(a, b) for a, b in zip(upper[12:], lower[12:], strict=False)}
    assert len(upper) > 20
    assert all(a != b for a, b in pairs)


def test_nothing_to_draw(make_map) -> None:
    assert terminal_picture(make_map([]), 80).lines == ()
