from __future__ import annotations

import re
import time
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layertap.arena.buffers import Buffer, aligned
from layertap.arena.picture.drawing import document
from layertap.arena.picture.terminal import terminal_picture
from layertap.arena.picture.timeline import HEIGHT, TOP, tick, timeline
from layertap.arena.planners import greedy

HOSTILE = '<script>alert("x")</script>&amp;\x00\x1b]]>\ud800'


def boxes(svg: Element) -> dict[str, tuple[float, float, float, float]]:
    """Where the rectangles of buffers are: x, y, width, height by name."""
    found = {}
    for group in svg.iter("g"):
        title, box = group.findtext("title") or "", group.find("rect")
        name = re.match(r"(\S+) #\d+\n|(\S+) \n", title)
        if name and box is not None:
            place = tuple(float(box.get(k, "nan")) for k in ("x", "y", "width", "height"))
            found[name[1] or name[2]] = (place[0], place[1], place[2], place[3])
    return found


def classes(svg: Element) -> dict[str, str]:
    found = {}
    for group in svg.iter("g"):
        title, box = group.findtext("title") or "", group.find("rect")
        if box is not None and " #" in title:
            found[title.split(" #")[0]] = box.get("class", "")
    return found


def test_a_rectangle_per_buffer_where_it_lies(chain) -> None:
    found = boxes(timeline(chain))
    assert set(found) == {"a", "b", "c", "d"}
    scale = HEIGHT / chain.arena.head
    x, y, width, height = found["c"]
    assert y == pytest.approx(TOP, abs=0.01)
    assert height == pytest.approx(800 * scale, abs=0.01)
    assert found["b"][1] + found["b"][3] == pytest.approx(TOP + HEIGHT - 112 * scale, abs=0.01)
    assert found["b"][0] < x < found["b"][0] + found["b"][2] < x + width


def test_what_is_alive_at_the_peak_stands_out(chain) -> None:
    assert classes(timeline(chain)) == {"a": "rest", "b": "edge", "c": "edge", "d": "rest"}
    text = document(timeline(chain, "net.tflite"))
    assert "peak at 1 CONV_2D: 1,200 bytes alive" in text
    assert "net.tflite: the arena needs 2,320 bytes" in text


def test_buffers_that_are_alive_together_do_not_overlap(make_map) -> None:
    rows = [("a", 400, 0, 1, 0), ("b", 800, 1, 2, 400), ("c", 400, 2, 2, 0)]
    found = boxes(timeline(make_map(rows)))
    a, b, c = found["a"], found["b"], found["c"]
    assert a[0] + a[2] <= c[0]
    assert a[1] == pytest.approx(c[1])
    assert b[1] + b[3] == pytest.approx(a[1], abs=0.01)


def test_the_lower_bound_is_drawn_where_it_is_missed(make_map) -> None:
    gap = make_map([("a", 400, 0, 1, 0), ("b", 800, 1, 2, 800), ("c", 400, 2, 2, 0)])
    text = document(timeline(gap))
    assert "lower bound 1,200 bytes, 400 below this layout" in text
    line = next(e for e in timeline(gap).iter("line") if e.get("class") == "bound")
    assert float(line.get("y1", "nan")) == pytest.approx(TOP + HEIGHT * 0.25, abs=0.01)


def test_the_planner_and_what_is_unknown_are_told(make_map) -> None:
    one = make_map([("a", 16, 0, 0, 0)], minimum=4096, unknown=("MY_OP",))
    text = document(timeline(one))
    assert "only while the planner works: 3,080 bytes" in text
    assert "at least 4,096 bytes" in text
    assert "unknown: MY_OP" in text


def test_names_cannot_break_out(make_map) -> None:
    rows = [(HOSTILE, 400, 0, 1, 0), ("b", 800, 1, 1, 400)]
    text = document(timeline(make_map(rows, op=HOSTILE), HOSTILE))
    assert "<script" not in text
    ElementTree.fromstring(text.encode())


@pytest.mark.parametrize("count", [1, 2, 65, 2000])
def test_short_and_long_models(make_map, count: int) -> None:
    rows = [(f"t{i}", 64, i, min(i + 1, count - 1), 64 * (i % 2)) for i in range(count)]
    start = time.monotonic()
    svg = timeline(make_map(rows))
    text = document(svg)
    assert time.monotonic() - start < 30
    assert len(boxes(svg)) == count
    assert float(svg.get("width", "nan")) < 2600
    assert len(text) < 1000 * count + 20_000


LIFE = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda life: tuple(sorted(life)))


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(st.text(), st.integers(1, 99_999), LIFE), max_size=7))
def test_any_layout_makes_a_picture(make_map, wishes) -> None:
    buffers = [Buffer(aligned(size), *life) for _, size, life in wishes]
    offsets = greedy(buffers)
    rows = [(n, s, *life, o) for (n, s, life), o in zip(wishes, offsets, strict=True)]
    memory = make_map(rows)
    svg = timeline(memory)
    ElementTree.fromstring(document(svg).encode())
    width, height = float(svg.get("width", "nan")), float(svg.get("height", "nan"))
    for box in svg.iter("rect"):
        if "transform" not in box.attrib:
            x, y = float(box.get("x", "0")), float(box.get("y", "0"))
            assert 0 <= x <= x + float(box.get("width", "nan")) <= width
            assert 0 <= y <= y + float(box.get("height", "nan")) <= height
    assert all(len(line) <= 70 for line in terminal_picture(memory, 70).lines[:-1])


def test_a_model_without_an_arena_and_one_that_nothing_uses(make_map) -> None:
    empty = document(timeline(make_map([])))
    ElementTree.fromstring(empty.encode())
    unused = make_map([("a", 64, 0, 0, 0), ("dangling", 32, -1, -1, 64)])
    assert "dangling" in boxes(timeline(unused))
    assert "nothing uses it" in document(timeline(unused))


def test_scratch_is_hatched(make_map) -> None:
    found = make_map([("a", 64, 0, 1, 0), ("b", 64, 1, 1, 64)], scratch=[(0, 256, 128)])
    hatched = [e for e in timeline(found).iter("rect") if e.get("fill") == "url(#hatch)"]
    assert len(hatched) == 2  # the buffer and the legend


def test_ticks_are_powers_of_two() -> None:
    assert tick(55296, 7) == 8192
    assert tick(1, 7) == 1
    assert tick(2000, 24) == 128
