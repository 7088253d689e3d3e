from __future__ import annotations

import re
from html.parser import HTMLParser

from layertap.arena.picture.page import Grid, page

HOSTILE = '</style><script>alert("x")</script>\x00'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    return tags


def test_a_page_has_both_pictures_and_every_tensor(chain) -> None:
    text = page(chain, "net.tflite", ["fits", "arena 2,320 bytes"])
    tags = read(text)
    assert tags.seen.count("svg") == 2
    assert {"a", "b", "c", "d", "b/weights", "fits"} <= set(tags.text)
    assert text.startswith("<!DOCTYPE html>")
    assert len(re.findall(r'<tr class="peak">', text)) == 2


def test_it_needs_no_network_and_no_script(chain) -> None:
    text = page(chain, "net.tflite")
    assert "script" not in read(text).seen
    assert "link" not in read(text).seen
    links = set(re.findall(r"https?://[^\"' <]+", text))
    assert links <= {"http://www.w3.org/2000/svg"}


def test_names_cannot_break_out(make_map) -> None:
    rows = [(HOSTILE, 400, 0, 1, 0), ("b", 800, 1, 1, 400)]
    text = page(make_map(rows, weights=[(HOSTILE, 3)]), HOSTILE, [HOSTILE])
    assert "script" not in read(text).seen
    assert text.count("</style>") == 3


def test_tables_of_the_caller_come_first(chain) -> None:
    grid = Grid(
        ("memory", "left"), [("ram", "12"), (HOSTILE, "-3")], frozenset({1}), frozenset({1})
    )
    text = page(chain, "net.tflite", tables={"Board": grid})
    assert text.index("Board") < text.index("Arena")
    assert '<td class="n">-3</td>' in text
    assert "script" not in read(text).seen
