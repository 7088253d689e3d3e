"""SVG elements, valid whatever the names in a model are."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may have, escaped or not. Source: XML 1.0, production 2."""

CHARACTER = 0.58
"""Width of an average character of a sans-serif font, in its size."""

STYLE = """
.paper{fill:#fff}
.ink{fill:#1c2330}
.soft{fill:#5d6675}
.rule{stroke:#d9dde4;stroke-width:1}
.axis{stroke:#8a93a1;stroke-width:1}
.bound{stroke:#1c2330;stroke-width:1.5;stroke-dasharray:6 4}
.column{fill:#1c2330;fill-opacity:.1}
.edge{stroke:#1c2330;stroke-width:1.6}
.rest{stroke:#5d6675;stroke-width:.6;opacity:.45}
.on{fill:#10151d}
.free{fill:none;stroke:#8a93a1;stroke-dasharray:3 3}
.b:hover .edge,.b:hover .rest{stroke-width:3;opacity:1}
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
@media (prefers-color-scheme:dark){
.paper{fill:#14181f}
.ink{fill:#eceff4}
.soft{fill:#a3acba}
.rule{stroke:#2c333f}
.axis{stroke:#707a8a}
.bound{stroke:#eceff4}
.column{fill:#fff;fill-opacity:.14}
.edge{stroke:#fff}
.rest{stroke:#a3acba}
.free{stroke:#707a8a}
}
"""


def clean(text: str) -> str:
    """``text`` without what XML cannot hold."""
    return NOT_XML.sub("\ufffd", text)


def child(parent: Element, tag: str, text: str = "", /, **attributes: float | str) -> Element:
    """A new element in ``parent``. Underscores at the end of an attribute's name are dropped and
    others become hyphens; numbers get two decimals at most."""
    element = ElementTree.SubElement(parent, tag)
    element.text = clean(text) or None
    for name, value in attributes.items():
        shown = clean(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
        element.set(name.rstrip("_").replace("_", "-"), shown)
    return element


def canvas(width: float, height: float, title: str) -> Element:
    """An empty picture with a background of its own, which reads on dark and on white."""
    width, height = math.ceil(width), math.ceil(height)
    svg = Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
    svg.set("viewBox", f"0 0 {width} {height}")
    svg.set("width", f"{width}")
    svg.set("height", f"{height}")
    child(svg, "title", title)
    child(svg, "style", STYLE)
    pattern = child(
        child(svg, "defs"), "pattern",
        id="hatch", width=6, height=6, patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )  # fmt: skip
    child(pattern, "line", y2=6, stroke="#10151d", stroke_width=1.4, stroke_opacity=0.55)
    child(svg, "rect", class_="paper", width=width, height=height)
    return svg


def write(
    parent: Element, x: float, y: float, text: str, size: float = 11, **more: float | str
) -> Element:
    """A line of text at ``x``, ``y``, its class ``ink`` unless ``class_`` says otherwise."""
    given: dict[str, float | str] = {"class_": "ink", "font_size": size, **more}
    return child(parent, "text", text, x=x, y=y, **given)


def text_width(text: str, size: float = 11) -> float:
    """About how wide ``text`` comes out."""
    return len(text) * size * CHARACTER


def document(svg: Element) -> str:
    """The picture as a file of its own."""
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + fragment(svg) + "\n"


def fragment(svg: Element) -> str:
    """The picture as part of a page."""
    return ElementTree.tostring(svg, encoding="unicode")


__all__ = ["canvas", "child", "clean", "document", "fragment", "text_width", "write"]
