"""What grew and what shrank between two memory maps."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from layertap.arena.memory_map import LayerFlash, MemoryMap, Peak, Placement

How = Literal["name", "position", "gone", "new"]
"""How two tensors or layers were matched: by ``name``, by ``position`` among those of the same
operator that no name matched; ``gone`` and ``new`` are in one of the maps only."""

Item = TypeVar("Item", LayerFlash, Placement)
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
    def kind(layer: LayerFlash) -> Key:
        return (layer.op,)

    return _changes(before.flash.layers, after.flash.layers, kind, lambda layer: layer.bytes)


def _tensors(before: MemoryMap, after: MemoryMap) -> Iterator[Change]:
    def kind(placement: Placement) -> Key:
        return (placement.op, placement.home, placement.index is None)

    kept = [[p for p in one if p.home in ("arena", "persistent")] for one in (before, after)]
    return _changes(kept[0], kept[1], kind, lambda placement: placement.size)


def _changes(
    before: Iterable[Item],
    after: Iterable[Item],
    kind: Callable[[Item], Key],
    size: Callable[[Item], int],
) -> Iterator[Change]:
    for old, new, how in _matched(before, after, kind):
        either = old or new
        assert either is not None
        yield Change(
            either.name,
            either.op,
            size(old) if old else None,
            size(new) if new else None,
            how,
            new.name if old and new and new.name != old.name else "",
        )


def _matched(
    before: Iterable[Item], after: Iterable[Item], kind: Callable[[Item], Key]
) -> Iterator[tuple[Item | None, Item | None, How]]:
    """Pairs of equal names; then, of each kind, what is left over in its order, first with first.

    Converters rename tensors when a model is quantized, and keep the order of the operators.
    """
    later = _numbered(after)
    left: list[Item] = []
    for key, item in _numbered(before).items():
        if key in later:
            yield item, later.pop(key), "name"
        else:
            left.append(item)
    waiting: dict[Key, deque[Item]] = {}
    for item in later.values():
        waiting.setdefault(kind(item), deque()).append(item)
    for item in left:
        queue = waiting.get(kind(item))
        if queue:
            yield item, queue.popleft(), "position"
        else:
            yield item, None, "gone"
    for queue in waiting.values():
        yield from ((None, item, "new") for item in queue)


def _numbered(items: Iterable[Item]) -> dict[tuple[str, int], Item]:
    """``items`` by name and, since operators without a result may share one, by number."""
    count: Counter[str] = Counter()
    found = {}
    for item in items:
        found[item.name, count[item.name]] = item
        count[item.name] += 1
    return found


def _ranked(changes: Iterator[Change]) -> tuple[Change, ...]:
    found = [change for change in changes if change.growth or change.how in ("gone", "new")]
    return tuple(sorted(found, key=lambda change: -abs(change.growth)))


__all__ = ["Change", "Difference", "How", "difference"]
