"""How large the arena of a firmware has to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layertap.arena.kernels import VENDORS
from layertap.arena.mapping import memory_map
from layertap.arena.target import load_target
from layertap.errors import PlanError
from layertap.tflite.model import TfliteModel

MARGIN = 8
"""Kernels made for a chip ask for scratch memory that no table covers: an eighth is added."""

LEAST_MARGIN = 2048
"""Bytes that are added at least."""


@dataclass(frozen=True, slots=True)
class ArenaSize:
    """Bytes for 32-bit chips and, where pointers have 64 bits, for those. ``origin`` says in one
    sentence where the figures come from. ``unknown`` is why the memory map could not tell, and
    ``guessed`` what the margin is for, which nothing tells."""

    narrow: int
    wide: int
    origin: str
    unknown: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()


def predicted(model: TfliteModel, targets: Sequence[str], kernels: Sequence[str]) -> ArenaSize:
    """The smallest arena that works on all of ``targets``, from the memory map.

    ``kernels``: libraries of kernels, one of which the build may have in place of the reference
    kernels; a margin is added for them. ``unknown`` is not empty where the map lacks an operator;
    then the sizes are too small.

    Raises CorruptModel for a model that no interpreter could allocate.
    """
    sizes: dict[str, int] = {}
    unknown: dict[str, None] = {}
    # The newest that is known: what is installed here says nothing about a firmware.
    version = load_target(targets[0]).commit
    for name in (*targets, "host"):
        # The allocator that keeps statistics is the wheel's.
        found = memory_map(model, load_target(name, version, recording=False)).arena
        sizes[name] = found.minimum
        unknown |= dict.fromkeys(found.unknown)
    narrow = max(sizes[name] for name in targets)
    origin = "the smallest that works, from the model's memory map for the reference kernels"
    if kernels:
        origin += f", and 1/{MARGIN} more (at least {LEAST_MARGIN:,} bytes) for kernels of the chip"
        sizes["host"], narrow = with_margin(sizes["host"]), with_margin(narrow)
    guessed = tuple(line for library in kernels for line in _asked(model, library))
    return ArenaSize(narrow, sizes["host"], origin, tuple(unknown), guessed)


def _asked(model: TfliteModel, library: str) -> Iterator[str]:
    """What no table tells of a library that brings kernels for operators of ``model``."""
    used = {operator.name for graph in model.subgraphs for operator in graph.operators}
    own = sorted(used & VENDORS.get(library, frozenset()))
    if own:
        yield f"what the {library} kernels of {', '.join(own)} ask for"


def with_margin(size: int) -> int:
    """``size`` and the margin, a multiple of 16."""
    more = size + max(size // MARGIN, LEAST_MARGIN)
    return more + -more % 16


def given(size: int, found: ArenaSize) -> ArenaSize:
    """An arena of the user's own choice, beside what was predicted. Raises PlanError for a size
    that is none."""
    if not 0 < size < 1 << 31:
        raise PlanError(f"an arena of {size:,} bytes is not possible", hint="give bytes, as in 96K")
    lacks = f", and lacks {'; '.join(found.unknown)}" if found.unknown else ""
    origin = f"as given; the memory map says {found.narrow:,}{lacks}"
    return ArenaSize(size, size, origin, guessed=found.guessed)


__all__ = ["ArenaSize", "given", "predicted", "with_margin"]
