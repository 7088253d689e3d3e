"""The arena over time: one rectangle per buffer, operators across, offsets upwards."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from layertap.arena.buffers import Buffer, live_bytes
from layertap.arena.memory_map import MemoryMap, Placement
from layertap.arena.picture.colours import FAMILIES, colour, family
from layertap.arena.picture.drawing import canvas, child, text_width, write
from layertap.arena.picture.labels import Names, cut
from layertap.arena.sites import DURING, native, steps
from layertap.core.units import format_bytes

LEFT, RIGHT, TOP = 84.0, 28.0, 100.0
"""Room around the plot, pixels."""

HEIGHT, STRIP = 400.0, 64.0
"""Of the plot, and of the strip below it that shows how many bytes are alive."""

NARROWEST, WIDEST = 860.0, 2400.0
"""The plot's width."""

LABELLED = 64
"""Operators up to which each is named on the axis."""

ACTIVATIONS, PLAIN = "#9FB2CC", "#DDDDDD"
"""Colours of the head, and of what in the tail belongs to no operator."""

SMALLEST = 0.35
"""Pixels of height below which a buffer that is not alive at the peak is not drawn."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where scopes and offsets come to lie."""

    first: int
    """The first scope: -1 where buffers that nothing uses have room all the same."""
    scopes: int
    top: int
    """The highest offset, bytes."""
    width: float

    @property
    def column(self) -> float:
        return self.width / self.scopes

    def x(self, scope: int) -> float:
        return LEFT + (scope - self.first) * self.column

    def y(self, offset: int) -> float:
        return TOP + HEIGHT * (1 - offset / self.top)


def timeline(memory: MemoryMap, title: str = "") -> Element:
    """The non-persistent section over time, and below it what is alive and the whole arena.

    ``title`` is the model's name. What is alive at the peak has full colour, the rest is pale.
    """
    frame = _frame(memory)
    names = steps(memory)
    height = TOP + HEIGHT + 12 + STRIP + _axis_height(frame, names) + 92
    svg = canvas(LEFT + frame.width + RIGHT, height, f"Arena of {title or 'the model'}")
    _headings(svg, memory, title)
    _offsets(svg, frame)
    _peak(svg, memory, frame)
    hidden = _buffers(svg, memory, frame)
    _levels(svg, memory, frame)
    _alive(svg, memory, frame)
    _axis(svg, memory, frame, names)
    _whole(svg, memory, frame, height - 62)
    if hidden:
        text = f"{hidden:,} buffers are too thin to be seen at this scale"
        end = LEFT + frame.width
        write(svg, end, height - 20, text, 11, class_="soft", text_anchor="end")
    return svg


def _frame(memory: MemoryMap) -> Frame:
    lives = [p.alive for p in memory.planned() if p.alive and p.size]
    first = min([0, *(life[0] for life in lives)])
    last = max([0, *(step.scope for step in memory.steps), *(life[1] for life in lives)])
    scopes = last - first + 1
    return Frame(
        first, scopes, max(memory.arena.head, 1), min(max(NARROWEST, 30.0 * scopes), WIDEST)
    )


def _headings(svg: Element, memory: MemoryMap, title: str) -> None:
    arena = memory.arena
    name = f"{cut(title, 60)}: " if title else ""
    size = f"{'' if arena.exact else 'at least '}{arena.minimum:,} bytes"
    write(svg, LEFT, 26, f"{name}the arena needs {size}", 16, font_weight="600")
    about = (
        f"target {memory.target}, TensorFlow Lite Micro {memory.version} · activations "
        f"{arena.head:,} · persistent {arena.tail:,} bytes"
    )
    write(svg, LEFT, 44, about, 11, class_="soft")
    _legend(svg, memory)


def _legend(svg: Element, memory: MemoryMap) -> None:
    used = {family(p.op) for p in memory.planned()}
    entries = [(name, FAMILIES[name][0]) for name in FAMILIES if name in used]
    x = LEFT
    for name, fill in entries:
        child(svg, "rect", x=x, y=54, width=11, height=11, rx=2, fill=fill, class_="edge")
        write(svg, x + 16, 63.5, name, 11)
        x += 30 + text_width(name)
    if any(p.index is None for p in memory.planned()):
        child(svg, "rect", x=x, y=54, width=11, height=11, rx=2, fill="#FFFFFF", class_="edge")
        child(svg, "rect", x=x, y=54, width=11, height=11, rx=2, fill="url(#hatch)")
        write(svg, x + 16, 63.5, "scratch", 11)
        x += 30 + text_width("scratch")
    write(svg, x, 63.5, "full colour: alive at the peak", 11, class_="soft")


def _offsets(svg: Element, frame: Frame) -> None:
    """Lines at round offsets."""
    step = tick(frame.top, 7)
    for offset in range(0, frame.top + 1, step):
        y = frame.y(offset)
        child(svg, "line", class_="rule", x1=LEFT, x2=LEFT + frame.width, y1=y, y2=y)
        write(svg, LEFT - 8, y + 4, format_bytes(offset), 11, class_="soft", text_anchor="end")
    middle = TOP + HEIGHT / 2
    turned = f"rotate(-90 14 {middle:.0f})"
    write(
        svg, 14, middle, "offset in the arena", 11,
        class_="soft", text_anchor="middle", transform=turned,
    )  # fmt: skip


def tick(top: int, count: int) -> int:
    """A power of two of which about ``count`` fit into ``top``."""
    step = 1
    while top / step > count:
        step *= 2
    return step


def _buffers(svg: Element, memory: MemoryMap, frame: Frame) -> int:
    """The rectangles, those of the peak last and on top; how many were too thin."""
    peak = memory.arena.peak.step.scope if memory.arena.peak else None
    hidden = 0
    above: list[Placement] = []
    planned = [p for p in memory.planned() if p.size]
    names = Names(p.name for p in planned)
    for placement in planned:
        if peak is not None and _spans(placement, peak):
            above.append(placement)
        elif placement.size / frame.top * HEIGHT < SMALLEST:
            hidden += 1
        else:
            _buffer(svg, placement, frame, names, "rest")
    for placement in above:
        _buffer(svg, placement, frame, names, "edge")
    return hidden


def _spans(placement: Placement, scope: int) -> bool:
    return placement.alive is not None and placement.alive[0] <= scope <= placement.alive[1]


def _buffer(svg: Element, placement: Placement, frame: Frame, names: Names, class_: str) -> None:
    first, last = placement.alive or (frame.first, frame.first)
    offset = placement.offset or 0
    x, y = frame.x(first), frame.y(offset + placement.size)
    width = max(frame.x(last + 1) - x, 1.0)
    height = max(frame.y(offset) - y, 0.8)
    inset = 1.0 if frame.column > 6 else 0.0
    box = {"x": x + inset, "y": y, "width": max(width - 2 * inset, 0.8), "height": height}
    group = child(svg, "g", class_="b")
    child(group, "title", _told(placement))
    child(group, "rect", fill=colour(placement.op), class_=class_, **box)
    if placement.index is None:
        child(group, "rect", fill="url(#hatch)", **box)
    _Label(group, "on" if class_ == "edge" else "ink", **box).write(placement, names)


def _told(placement: Placement) -> str:
    """All about a buffer, for whoever points at it."""
    offset, (first, last) = placement.offset or 0, placement.alive or (0, 0)
    life = "nothing uses it" if first < 0 else f"alive from step {first} to {last}"
    what = f"{placement.dtype} {'x'.join(map(str, placement.shape))}".rstrip()
    return (
        f"{placement.name} {native(placement)}\n{placement.op}, {what or 'scratch'}\n"
        f"{placement.bytes:,} bytes at {offset:,} to {offset + placement.size:,}\n{life}"
    )


class _Label:
    """What is written into a rectangle, across or upright, where there is room."""

    SIZE = 11.0

    def __init__(
        self, group: Element, class_: str, *, x: float, y: float, width: float, height: float
    ) -> None:
        self.group, self.class_ = group, class_
        self.width, self.height = width, height
        self.middle = (x + width / 2, y + height / 2)

    def write(self, placement: Placement, names: Names) -> None:
        letter, name, number = text_width("m", self.SIZE), placement.name, native(placement)
        across, upright = int((self.width - 6) / letter), int((self.height - 6) / letter)
        room = self.height >= self.SIZE + 2
        if room and across >= min(len(name), max(9, min(upright, 14))):
            self._across(names.fitted(name, across, number), placement.size)
        elif self.width >= self.SIZE + 2 and upright >= max(4, across):
            self._line(names.fitted(name, upright, number), 4, self.SIZE, upright=True)
        elif room and across >= 4:
            self._across(names.fitted(name, across, number), placement.size)

    def _across(self, text: str, size: int) -> None:
        shown = format_bytes(size)
        two = self.height >= 34 and text_width(shown, 9.5) + 6 < self.width
        self._line(text, -2 if two else 4, self.SIZE)
        if two:
            self._line(shown, 11, 9.5, opacity=0.75)

    def _line(
        self, text: str, shift: float, size: float, upright: bool = False, opacity: float = 1
    ) -> None:
        x, y = self.middle
        more: dict[str, float | str] = {"opacity": opacity} if opacity < 1 else {}
        if upright:
            x, shift = x + shift, 0
            more["transform"] = f"rotate(-90 {x:.1f} {y:.1f})"
        write(
            self.group, x, y + shift, text, size,
            class_=self.class_, text_anchor="middle", pointer_events="none", **more,
        )  # fmt: skip


def _peak(svg: Element, memory: MemoryMap, frame: Frame) -> None:
    """The column in which most is alive, marked above the plot."""
    peak = memory.arena.peak
    if peak is None:
        return
    x = frame.x(peak.step.scope)
    middle = x + frame.column / 2
    box = {"x": x, "y": TOP, "width": max(frame.column, 1.5), "height": HEIGHT + 12 + STRIP}
    child(svg, "rect", class_="column", pointer_events="none", **box)
    points = f"{middle - 5:.1f},{TOP - 8:.1f} {middle + 5:.1f},{TOP - 8:.1f} {middle:.1f},{TOP:.1f}"
    child(svg, "polygon", class_="ink", points=points)
    text = f"peak at {steps(memory).get(peak.step.scope, peak.op)}: {peak.bytes:,} bytes alive"
    wide = text_width(text)
    start = min(max(middle - wide / 2, LEFT), LEFT + frame.width - wide)
    write(svg, max(start, LEFT), TOP - 13, text, 11, font_weight="600")


def _levels(svg: Element, memory: MemoryMap, frame: Frame) -> None:
    """The lower bound as a dashed line where the layout stays above it."""
    arena = memory.arena
    end = LEFT + frame.width
    y = frame.y(min(arena.lower_bound, frame.top))
    child(svg, "line", class_="bound", x1=LEFT, x2=end, y1=y, y2=y, pointer_events="none")
    over = arena.head - arena.lower_bound
    text = (
        f"{arena.head:,} bytes: no layout is lower"
        if over <= 0
        else f"lower bound {arena.lower_bound:,} bytes, {over:,} below this layout"
    )
    below = y + 13 if y + 20 < TOP + HEIGHT else y - 5
    wide = text_width(text, 10.5) + 8
    child(
        svg, "rect", class_="paper", x=end - wide, y=below - 10, width=wide, height=13, opacity=0.8
    )
    write(svg, end - 4, below, text, 10.5, text_anchor="end")


def _alive(svg: Element, memory: MemoryMap, frame: Frame) -> None:
    """Bytes alive in each scope, as bars."""
    placed = [p for p in memory.planned() if p.alive]
    alive = live_bytes([Buffer(p.size, *p.alive) for p in placed if p.alive])
    base, top = TOP + HEIGHT + 12 + STRIP, max(max(alive.values(), default=1), 1)
    changes = [*alive, frame.first + frame.scopes]
    for (scope, count), end in zip(alive.items(), changes[1:], strict=True):
        x, y = frame.x(scope), base - (STRIP - 4) * count / top
        bar = child(svg, "g", class_="b")
        child(bar, "title", f"{count:,} bytes alive")
        box = {"x": x, "y": y, "width": frame.x(end) - x, "height": base - y}
        child(bar, "rect", class_="soft", opacity=0.45, **box)
    child(svg, "line", class_="axis", x1=LEFT, x2=LEFT + frame.width, y1=base, y2=base)
    write(svg, LEFT - 8, base - STRIP / 2 + 4, "alive", 11, class_="soft", text_anchor="end")


def _axis_height(frame: Frame, names: dict[int, str]) -> float:
    if frame.scopes > LABELLED:
        return 36
    return 14 + 0.75 * max(text_width(cut(name, 26), 10) for name in [*names.values(), "input"])


def _axis(svg: Element, memory: MemoryMap, frame: Frame, names: dict[int, str]) -> None:
    """The operators, each named where there is room, else every so many by number."""
    base = TOP + HEIGHT + 12 + STRIP
    peak = memory.arena.peak.step.scope if memory.arena.peak else None
    every = 1 if frame.scopes <= LABELLED else tick(frame.scopes, 24)
    for scope in range(frame.first, frame.first + frame.scopes):
        if (scope - 1) % every:
            continue
        x = frame.x(scope) + frame.column / 2
        text = names.get(scope, "unused" if scope < 0 else str(scope))
        strong = "600" if scope == peak else "400"
        if every > 1:
            shown = text.split(" ")[0]
            write(svg, x, base + 15, shown, 10, class_="soft", text_anchor="middle")
            continue
        turned = f"rotate(-48 {x:.1f} {base + 12:.1f})"
        write(
            svg, x + 3, base + 12, cut(text, 26), 10,
            class_="ink" if scope == peak else "soft", font_weight=strong,
            text_anchor="end", transform=turned,
        )  # fmt: skip


def _whole(svg: Element, memory: MemoryMap, frame: Frame, y: float) -> None:
    """The whole arena as one bar: activations, the persistent section by purpose, what is left."""
    arena = memory.arena
    scale = frame.width / max(arena.minimum, arena.used, 1)
    known = [(s.name, s.bytes) for s in arena.sections if s.bytes]
    rest = arena.tail - sum(size for _, size in known)
    ranked = sorted([*known, *([("other", rest)] if rest > 0 else [])], key=lambda part: -part[1])
    parts = [("activations", arena.head, ACTIVATIONS)]
    parts += [(name, size, colour(name) if name.isupper() else PLAIN) for name, size in ranked]
    write(svg, LEFT - 8, y + 17, "arena", 11, class_="soft", text_anchor="end")
    x = LEFT
    for name, size, fill in parts:
        _part(svg, x, y, size * scale, fill, name, size)
        x += size * scale
    left = arena.minimum - arena.used
    if left > 0:
        why = f"only {DURING[arena.reason]}" if arena.reason in DURING else "rounding"
        _part(svg, x, y, left * scale, "", why, left)
    write(svg, LEFT, y + 42, _why(memory), 11, class_="soft")


def _part(svg: Element, x: float, y: float, width: float, fill: str, name: str, size: int) -> None:
    bar = child(svg, "g", class_="b")
    child(bar, "title", f"{name}: {size:,} bytes")
    look: dict[str, str | float] = {"fill": fill, "class_": "rest", "style": "opacity:1"}
    box = {"x": x, "y": y, "width": max(width, 0.5), "height": 26}
    child(bar, "rect", **box, **(look if fill else {"class_": "free"}))
    for text in (f"{name} {size:,}", name):
        if text_width(text, 10.5) + 8 < width:
            middle = x + width / 2
            kind = "on" if fill else "soft"
            write(
                bar, middle, y + 17, text, 10.5,
                class_=kind, text_anchor="middle", pointer_events="none",
            )  # fmt: skip
            return


def _why(memory: MemoryMap) -> str:
    arena = memory.arena
    if arena.reason in DURING:
        why = (
            f"{arena.minimum:,} bytes are needed {DURING[arena.reason]}; "
            f"{arena.used:,} are used afterwards"
        )
    else:
        why = f"{arena.head:,} bytes of activations + {arena.tail:,} that persist"
    if arena.unknown:
        why += f"; unknown: {', '.join(arena.unknown)}"
    return why


__all__ = ["Frame", "tick", "timeline"]
