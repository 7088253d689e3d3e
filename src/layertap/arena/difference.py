"""What grew and what shrank between two memory maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from layertap.arena.memory_map import LayerFlash, MemoryMap, Peak, Placement

How = Literal["name", "position", "gone", "new"]
"""How two tensors or layers were matched: by ``name``, by ``position`` among those of the same
operator that no name matched; ``gone`` and ``new`` are in one of the maps only."""

Item = TypeVar("Item")
Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """Bytes ``before`` and ``after``; None where it is unknown or not there.

    ``renamed`` is the name in the second map where that is another.
    """

    name: str
    what: str
    before: int | None
    after: int | None
    how: How = "name"
    renamed: str = ""

    @property
    def growth(self) -> int:
        """Bytes more than before; what is not there has none."""
        return (self.after or 0) - (self.before or 0)


@dataclass(frozen=True, slots=True)
class Difference:
    """``arena`` and ``sections`` and ``flash`` keep their order; ``layers`` (flash) and
    ``tensors`` (arena) have only what changed, largest change first."""

    arena: tuple[Change, ...]
    sections: tuple[Change, ...]
    flash: tuple[Change, ...]
    layers: tuple[Change, ...]
    tensors: tuple[Change, ...]
    peak_before: Peak | None
    peak_after: Peak | None

    @property
    def same(self) -> bool:
        """Whether nothing takes more or less than before."""
        totals = (*self.arena, *self.sections, *self.flash)
        return not self.layers and not self.tensors and not any(c.growth for c in totals)


def difference(before: MemoryMap, after: MemoryMap) -> Difference:
    """What changed from one map to the other."""
    a, b = before.arena, after.arena
    arena = (
        Change("smallest arena", "", a.minimum, b.minimum),
        Change("used", "", a.used, b.used),
        Change("activations", "head", a.head, b.head),
        Change("persistent", "tail", a.tail, b.tail),
        Change("lower bound", "head", a.lower_bound, b.lower_bound),
    )
    flash = (
        Change("model", "", before.flash.total, after.flash.total),
        Change("weights", "", before.flash.weights, after.flash.weights),
    )
    return Difference(
        arena,
        tuple(_sections(before, after)),
        flash,
        _ranked(_layers(before, after)),
        _ranked(_tensors(before, after)),
        a.peak,
        b.peak,
    )


def _sections(before: MemoryMap, after: MemoryMap) -> Iterator[Change]:
    old = {section.name: section for section in before.arena.sections}
    new = {section.name: section for section in after.arena.sections}
    for name in dict.fromkeys([*old, *new]):
        there, here = old.get(name), new.get(name)
        how: How = "name" if there and here else "gone" if there else "new"
        sizes = (there.bytes if there else None, here.bytes if here else None)
        yield Change(name, "tail", *sizes, how)


def _layers(before: MemoryMap, after: MemoryMap) -> Iterator[Change]:
    def name(layer: LayerFlash) -> str:
        return layer.name

    def kind(layer: LayerFlash) -> Key:
        return (layer.op,)

    pairs = _matched(before.flash.layers, after.flash.layers, name, kind)
    for old, new, how in pairs:
        either = old or new
        assert either is not None
        yield Change(
            either.name,
            either.op,
            old.bytes if old else None,
            new.bytes if new else None,
            how,
            new.name if old and new and new.name != old.name else "",
        )


def _tensors(before: MemoryMap, after: MemoryMap) -> Iterator[Change]:
    def name(placement: Placement) -> str:
        return placement.name

    def kind(placement: Placement) -> Key:
        return (placement.op, placement.home, placement.index is None)

    old_ones = [p for p in before if p.home in ("arena", "persistent")]
    new_ones = [p for p in after if p.home in ("arena", "persistent")]
    for old, new, how in _matched(old_ones, new_ones, name, kind):
        either = old or new
        assert either is not None
        yield Change(
            either.name,
            either.op,
            old.size if old else None,
            new.size if new else None,
            how,
            new.name if old and new and new.name != old.name else "",
        )


def _matched(
    before: Iterable[Item],
    after: Iterable[Item],
    name: Callable[[Item], str],
    kind: Callable[[Item], Key],
) -> Iterator[tuple[Item | None, Item | None, How]]:
    """Pairs of equal names; then, of each kind, what is left over in its order, first with first.

    Converters rename tensors when a model is quantized, and keep the order of the operators.
    """
    later = list(after)
    by_name = {name(item): item for item in reversed(later)}
    left: list[Item] = []
    taken: set[str] = set()
    for item in before:
        if name(item) in by_name and name(item) not in taken:
            taken.add(name(item))
            yield item, by_name[name(item)], "name"
        else:
            left.append(item)
    waiting: dict[Key, list[Item]] = {}
    for item in later:
        if name(item) not in taken:
            waiting.setdefault(kind(item), []).append(item)
    for queue in waiting.values():
        queue.reverse()
    for item in left:
        queue = waiting.get(kind(item), [])
        if queue:
            yield item, queue.pop(), "position"
        else:
            yield item, None, "gone"
    for queue in waiting.values():
        for item in reversed(queue):
            yield None, item, "new"


def _ranked(changes: Iterator[Change]) -> tuple[Change, ...]:
    found = [change for change in changes if change.growth or change.how in ("gone", "new")]
    return tuple(sorted(found, key=lambda change: -abs(change.growth)))


__all__ = ["Change", "Difference", "How", "difference"]
