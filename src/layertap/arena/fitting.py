"""Whether a model fits a board, and what would make it fit."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from layertap.arena.boards import Board, Region
from layertap.arena.memory_map import MemoryMap
from layertap.arena.sites import DURING


@dataclass(frozen=True, slots=True)
class Need:
    """``bytes`` that ``what`` (the model, the arena, the program) takes."""

    what: str
    bytes: int


@dataclass(frozen=True, slots=True)
class RegionVerdict:
    """What is kept in a region, and whether it fits there."""

    region: Region
    needs: tuple[Need, ...]

    @property
    def needed(self) -> int:
        return sum(need.bytes for need in self.needs)

    @property
    def margin(self) -> int:
        """Bytes left, below zero for those that are missing."""
        return self.region.usable - self.needed

    @property
    def fits(self) -> bool:
        return self.margin >= 0 or not self.needs


@dataclass(frozen=True, slots=True)
class Verdict:
    """``advice`` says what would make the model fit, ``notes`` what the verdict does not know."""

    board: Board
    regions: tuple[RegionVerdict, ...]
    advice: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return all(verdict.fits for verdict in self.regions)


def verdict(memory: MemoryMap, board: Board) -> Verdict:
    """Whether the model file and the smallest arena that works fit ``board``."""
    found = tuple(RegionVerdict(region, _needs(memory, board, region)) for region in board.regions)
    advice = [line for one in found if not one.fits for line in _advice(memory, one, found)]
    return Verdict(board, found, tuple(advice), tuple(_notes(memory, board, found)))


def shared_notes(memory: MemoryMap) -> Iterator[str]:
    """What the layout in the model relies on."""
    shared = memory.overlaps.shared
    libraries = list(dict.fromkeys(library for one in shared for library in one.vendors))
    if libraries:
        yield (
            f"its layout lays the result of {len(shared)} operators over what they read: right "
            f"with the reference kernels, not known to be with those of {', '.join(libraries)}; "
            "--kernels says which a build has"
        )


def _needs(memory: MemoryMap, board: Board, region: Region) -> tuple[Need, ...]:
    wanted = [
        (board.model, Need("model", memory.flash.total)),
        (board.arena, Need("arena", memory.arena.minimum)),
        (board.program, Need("program", board.code or 0)),
    ]
    return tuple(need for place, need in wanted if place == region.name and need.bytes)


def _advice(
    memory: MemoryMap, short: RegionVerdict, all_: tuple[RegionVerdict, ...]
) -> Iterator[str]:
    kept = {need.what: need.bytes for need in short.needs}
    for what, size in kept.items():
        if what == "program":
            continue
        for other in _roomy(what, size, short, all_):
            left = other.margin - size
            where = f"{'external ' if other.region.external else ''}{other.region.name}"
            yield f"the {what} fits into {where}, with {left:,} bytes to spare"
    if "arena" in kept:
        yield _layout(memory, short.margin + kept["arena"])
    yield from _floats(memory, kept)


def _roomy(
    what: str, size: int, short: RegionVerdict, all_: tuple[RegionVerdict, ...]
) -> list[RegionVerdict]:
    """Other regions with room, those inside the chip first; an arena must be writable."""
    found = [
        one
        for one in all_
        if one is not short and one.margin >= size and (what != "arena" or one.region.kind == "ram")
    ]
    if what == "model":
        found = [one for one in found if one.region.kind == "flash"] or found
    return sorted(found, key=lambda one: one.region.external)


def _layout(memory: MemoryMap, room: int) -> str:
    """What another layout of the arena could do, given ``room`` bytes for it."""
    arena = memory.arena
    least = arena.tail + arena.lower_bound
    if arena.reason in DURING:
        return (
            f"no other layout helps: {arena.minimum:,} bytes are needed {DURING[arena.reason]}, "
            f"{arena.used:,} afterwards"
        )
    if least <= room:
        return (
            f"another layout may do it: layouts need at least {least:,} bytes, and {room:,} are "
            "there"
        )
    return (
        f"no other layout is enough: all need at least {least:,} bytes, unless tensors share their "
        f"bytes, and {max(room, 0):,} are there"
    )


def _floats(memory: MemoryMap, kept: Container[str]) -> Iterator[str]:
    """What quantization could do for the model or the arena."""
    floats = [p for p in memory if p.dtype == "float32"]
    alive = set(memory.arena.peak.alive) if memory.arena.peak else set()
    weights = sum(size for _, size in {(p.offset, p.size) for p in floats if p.home == "flash"})
    values = sum(p.size for p in floats if p.home == "arena" and p.name in alive)
    for what, where, size in (
        ("model", "of its weights", weights),
        ("arena", "alive at the peak", values),
    ):
        if what in kept and size:
            yield f"{size:,} bytes {where} are float32; quantized to int8 they take a quarter"


def _notes(memory: MemoryMap, board: Board, found: tuple[RegionVerdict, ...]) -> Iterator[str]:
    if memory.target != board.target:
        yield (
            f"the arena is that of the target {memory.target}; the board's is {board.target}, "
            "whose structures have other sizes"
        )
    yield from shared_notes(memory)
    if memory.arena.unknown:
        yield f"the arena may be larger: {', '.join(memory.arena.unknown)}"
    for one in found:
        if one.region.name == board.program and board.code is None and one.margin > 0:
            yield f"the program's size is not known: {one.margin:,} bytes are left for it"
        if one.region.name == board.arena and one.fits:
            yield f"{one.margin:,} bytes of {one.region.name} are left for stack, heap and the rest"


__all__ = ["Need", "RegionVerdict", "Verdict", "shared_notes", "verdict"]
