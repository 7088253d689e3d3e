"""The flash by layer: one bar per operator that has weights, in order of execution."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from layertap.arena.memory_map import LayerFlash, MemoryMap
from layertap.arena.picture.colours import colour
from layertap.arena.picture.drawing import canvas, child, write
from layertap.arena.picture.labels import Names, cut

LEFT, RIGHT, TOP, WIDTH = 300.0, 120.0, 62.0, 560.0
ROW = 19.0

SHOWN = 60
"""Layers that have a bar of their own; the smaller ones of a larger network share one."""

Row = tuple[str, str, int, str]
"""A label, the operator, bytes, and what to tell whoever points at the bar."""


def flash_bars(memory: MemoryMap, title: str = "") -> Element:
    """The bytes of the model file by layer; weights that layers share count for the first."""
    flash = memory.flash
    rows = _rows(memory)
    svg = canvas(LEFT + WIDTH + RIGHT, TOP + ROW * len(rows) + 18, f"Flash of {title or 'model'}")
    name = f"{cut(title, 60)}: " if title else ""
    write(svg, 24, 26, f"{name}{flash.total:,} bytes of flash", 16, font_weight="600")
    about = f"weights {flash.weights:,} · the graph's description {flash.total - flash.weights:,}"
    write(svg, 24, 44, about, 11, class_="soft")
    most = max((size for _, _, size, _ in rows), default=1) or 1
    for i, row in enumerate(rows):
        _bar(svg, TOP + ROW * i, row, WIDTH / most, flash.total)
    return svg


def _rows(memory: MemoryMap) -> list[Row]:
    layers = [layer for layer in memory.flash.layers if layer.bytes or layer.shared]
    names = Names(layer.name for layer in layers)
    kept = set(sorted(range(len(layers)), key=lambda i: -layers[i].bytes)[:SHOWN])
    rows = [_layer(layer, names) for i, layer in enumerate(layers) if i in kept]
    small = [layer.bytes for i, layer in enumerate(layers) if i not in kept]
    if small:
        rows.append((f"{len(small):,} smaller layers", "", sum(small), "the layers not shown"))
    rest = memory.flash.total - memory.flash.weights
    told = "names, shapes, quantization and wiring, and padding between weights"
    return [*rows, ("the graph's description", "", rest, told)]


def _layer(layer: LayerFlash, names: Names) -> Row:
    told = f"{layer.name}\n{layer.op}\n{layer.bytes:,} bytes"
    if layer.shared:
        told += f", and {layer.shared:,} that earlier layers were counted for"
    return names.fitted(layer.name, 22), layer.op, layer.bytes, told


def _bar(svg: Element, y: float, row: Row, scale: float, total: int) -> None:
    label, op, size, told = row
    group = child(svg, "g", class_="b")
    child(group, "title", told)
    write(group, LEFT - 10, y + 13, label, 11, text_anchor="end")
    if op:
        write(group, 24, y + 13, cut(op, 20), 9, class_="soft")
    fill = colour(op) if op else "#DDDDDD"
    width = max(size * scale, 0.8)
    child(
        group, "rect", x=LEFT, y=y + 1.5, width=width, height=ROW - 4,
        fill=fill, class_="rest", style="opacity:1",
    )  # fmt: skip
    text = f"{size:,}  {size / max(total, 1):.1%}"
    write(group, LEFT + width + 7, y + 13, text, 11)


__all__ = ["flash_bars"]
