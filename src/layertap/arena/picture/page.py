"""One HTML page that tells all about a model's memory; it needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from layertap.arena.memory_map import MemoryMap, Placement
from layertap.arena.picture.drawing import child
from layertap.arena.picture.flash import flash_bars
from layertap.arena.picture.timeline import timeline
from layertap.arena.sites import native, steps

SHEET = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
  margin:2rem auto;max-width:1100px;padding:0 1rem;color:#1c2330;background:#fff}
h1{font-size:1.5rem;margin:0 0 .5rem}
h2{font-size:1.1rem;margin:2rem 0 .5rem}
p.fact{margin:.15rem 0}
p.lead{margin:.4rem 0;font-size:1.15rem;font-weight:600}
svg{max-width:100%;height:auto;display:block}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:13px;width:100%}
th{text-align:left;font-weight:600;border-bottom:2px solid #8a93a1;padding:.25rem .6rem}
td{border-bottom:1px solid #d9dde4;padding:.2rem .6rem;overflow-wrap:anywhere;vertical-align:top}
td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
tr.peak td{background:#eaf2fb}
details summary{cursor:pointer;font-weight:600;margin:1rem 0 .5rem}
@media (prefers-color-scheme:dark){
body{color:#eceff4;background:#14181f}
th{border-color:#707a8a}
td{border-color:#2c333f}
tr.peak td{background:#1f2c3d}
}
"""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: ``numbers`` are the columns that hold numbers, ``marked`` the rows in colour."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()


def page(
    memory: MemoryMap,
    title: str,
    facts: Sequence[str] = (),
    tables: Mapping[str, Grid] = MappingProxyType({}),
) -> str:
    """The page as a document. ``facts`` are lines of text under the heading, ``tables`` follow
    with headings of their own; then come the pictures and what the map holds."""
    html = Element("html", lang="en")
    head = child(html, "head")
    child(head, "meta", charset="utf-8")
    child(head, "meta", name="viewport", content="width=device-width,initial-scale=1")
    child(head, "title", f"Memory of {title}")
    child(head, "style", SHEET)
    body = child(html, "body")
    child(body, "h1", f"Memory of {title}")
    for i, fact in enumerate(facts):
        child(body, "p", fact.strip(), class_="fact" if i else "lead")
    for heading, grid in tables.items():
        child(body, "h2", heading)
        table(body, grid)
    for heading, picture in (("Arena", timeline(memory)), ("Flash", flash_bars(memory))):
        child(body, "h2", heading)
        child(body, "div", class_="wide").append(picture)
    _tables(body, memory)
    return "<!DOCTYPE html>\n" + ElementTree.tostring(html, encoding="unicode", method="html")


def _tables(body: Element, memory: MemoryMap) -> None:
    child(body, "h2", "The persistent section")
    table(body, _sections(memory))
    child(body, "h2", "In the arena, by offset")
    table(body, _planned(memory))
    rest = [p for p in memory if p.home != "arena"]
    details = child(body, "details")
    child(details, "summary", f"The other {len(rest):,} tensors")
    table(details, _rest(rest))


def table(parent: Element, grid: Grid) -> Element:
    """``grid`` as an element in ``parent``."""
    element = child(parent, "table")
    _row(child(element, "thead"), "th", grid.head, grid)
    body = child(element, "tbody")
    for i, cells in enumerate(grid.rows):
        row = _row(body, "td", cells, grid)
        if i in grid.marked:
            row.set("class", "peak")
    return element


def _row(parent: Element, tag: str, cells: Sequence[str], grid: Grid) -> Element:
    row = child(parent, "tr")
    for i, cell in enumerate(cells):
        made = child(row, tag, cell)
        if i in grid.numbers:
            made.set("class", "n")
    return row


def _sections(memory: MemoryMap) -> Grid:
    rows = [
        (s.name, f"{s.count:,}", "unknown" if s.bytes is None else f"{s.bytes:,}", s.note)
        for s in memory.arena.sections
    ]
    return Grid(("purpose", "number", "bytes", ""), rows, frozenset({1, 2}))


def _planned(memory: MemoryMap) -> Grid:
    """What is alive at the peak is marked."""
    planned, names = memory.planned(), steps(memory)
    alive = set(memory.arena.peak.alive) if memory.arena.peak else set()
    rows = []
    for p in planned:
        offset, (first, last) = p.offset or 0, p.alive or (-1, -1)
        life = "never" if first < 0 else f"{names.get(first, first)} – {names.get(last, last)}"
        shape = "×".join(map(str, p.shape))
        told = (p.name, native(p), p.op, f"{p.dtype} {shape}".strip())
        rows.append((*told, f"{offset:,}", f"{p.size:,}", life))
    head = ("name", "", "made by", "value", "offset", "bytes", "alive")
    marked = frozenset(i for i, p in enumerate(planned) if p.name in alive)
    return Grid(head, rows, frozenset({1, 4, 5}), marked)


def _rest(placements: Sequence[Placement]) -> Grid:
    rows = [
        (p.name, native(p), p.home, f"{p.dtype} {'×'.join(map(str, p.shape))}", f"{p.bytes:,}")
        for p in placements
    ]
    return Grid(("name", "", "home", "value", "bytes"), rows, frozenset({1, 4}))


__all__ = ["Grid", "page", "table"]
