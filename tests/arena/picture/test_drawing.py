from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from layertap.arena.picture.drawing import canvas, child, clean, document, write


@given(st.text())
def test_any_name_makes_a_valid_document(name: str) -> None:
    svg = canvas(100, 50, name)
    write(svg, 1, 2, name, class_=name)
    child(child(svg, "g"), "title", name)
    read = ElementTree.fromstring(document(svg).encode("utf-8"))
    titles = [e.text or "" for e in read.iter() if e.tag.endswith("title")]
    normal = clean(name).replace("\r\n", "\n").replace("\r", "\n")
    assert {t.replace("\r\n", "\n").replace("\r", "\n") for t in titles} == {normal}


def test_numbers_are_short() -> None:
    svg = canvas(10, 10, "")
    line = child(svg, "line", x1=1 / 3, y1=2.0, stroke_width=0.1, class_="rule")
    assert line.attrib == {"x1": "0.33", "y1": "2", "stroke-width": "0.1", "class": "rule"}
