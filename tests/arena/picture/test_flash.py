from __future__ import annotations

from xml.etree import ElementTree

from layertap.arena.picture.drawing import document
from layertap.arena.picture.flash import SHOWN, flash_bars

ROWS = [("a", 16, 0, 0, 0)]


def widths(svg) -> dict[str, float]:
    found = {}
    for group in svg.iter("g"):
        box = group.find("rect")
        found[(group.findtext("title") or "").split("\n")[0]] = float(box.get("width"))
    return found


def test_bars_are_as_long_as_layers_are_heavy(make_map) -> None:
    svg = flash_bars(make_map(ROWS, weights=[("first", 4000), ("second", 1000), ("none", 0)]))
    found = widths(svg)
    assert found["first"] / found["second"] == 4
    assert "none" not in found
    text = document(svg)
    assert "5,500 bytes of flash" in text
    assert "4,000  72.7%" in text


def test_many_layers_share_a_bar(make_map) -> None:
    weights = [(f"layer{i}", 100 + i) for i in range(SHOWN + 40)]
    svg = flash_bars(make_map(ROWS, weights=weights))
    text = document(svg)
    assert "40 smaller layers" in text
    assert f"{sum(100 + i for i in range(40)):,}  " in text
    assert len(widths(svg)) == SHOWN + 2


def test_names_cannot_break_out(make_map) -> None:
    hostile = "<script>&\x00"
    text = document(flash_bars(make_map(ROWS, weights=[(hostile, 10)], op=hostile), hostile))
    assert "<script" not in text
    ElementTree.fromstring(text.encode())


def test_a_model_without_weights(make_map) -> None:
    ElementTree.fromstring(document(flash_bars(make_map(ROWS))).encode())
