"""Where every byte of a model lives: the answer that the rest of this package works out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from layertap.arena.lifetimes import Lifetime, Step

Home = Literal["flash", "arena", "persistent", "external", "none"]
"""``flash``: in the model file. ``arena``: in the non-persistent section, at an offset and for a
time. ``persistent``: in the persistent section, where it outlives an execution (variables).
``external``: bytes that the file refers to and does not hold. ``none``: no bytes at all."""

Reason = Literal["buffers", "planner", "preparation"]
"""What decides the smallest arena: the buffers and structures themselves, the memory that the
planner needs while it works, or what describes the tensors of one operator while its kernel is
prepared."""


Sharing = Literal["none", "in-place", "overlapping"]
"""Whether a result may lie in the bytes of an operand that nothing needs afterwards: nowhere;
exactly over it, where the kernel allows it; or reaching into it from below as well, where the
order in which the reference kernel reads and writes allows that."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One tensor or scratch buffer.

    ``name`` is the tap's name; scratch buffers are called after their operator, as
    ``"conv2d/scratch:0"``. ``index`` is the tensor's index in ``subgraph``, None for a scratch
    buffer. ``operator`` is the position of the operator that computes the tensor or asked for the
    scratch buffer, None for inputs and weights. ``bytes`` is the size of the value as the
    interpreter counts it, ``size`` what it takes where it lives, rounding included. ``offset`` is
    in bytes from the start of the arena for the home ``arena``, from the start of the file for
    ``flash``, else None. ``alive`` is the first and the last scope, None outside the arena.
    """

    name: str
    subgraph: int
    index: int | None
    operator: int | None
    op: str
    home: Home
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    size: int
    offset: int | None = None
    alive: Lifetime | None = None
    variable: bool = False

    def shares_with(self, other: Placement) -> bool:
        """Whether both have bytes of the arena, or of the file, in common."""
        if self.home != other.home or self.offset is None or other.offset is None:
            return False
        return self.offset < other.offset + other.size and other.offset < self.offset + self.size


@dataclass(frozen=True, slots=True)
class Section:
    """Bytes of the persistent section of one purpose, ``count`` allocations, alignment included.

    ``bytes`` is None where it depends on what no table knows, and ``note`` says on what.
    """

    name: str
    count: int
    bytes: int | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Peak:
    """The scope in which most bytes of the arena are alive, and what is alive then."""

    step: Step
    op: str
    bytes: int
    alive: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Arena:
    """Sizes in bytes. ``head`` is the non-persistent section, ``tail`` the persistent one.

    ``minimum`` is the smallest arena in which the model can be allocated, a multiple of 16, for an
    arena whose start is aligned to 16; ``reason`` says what decides it. ``lower_bound`` is the
    smallest head that any layout could have. ``unknown`` names what no table covers: then
    ``tail``, ``used`` and ``minimum`` are what is known, and the truth is at least as large.
    """

    head: int
    tail: int
    minimum: int
    reason: Reason
    lower_bound: int
    peak: Peak | None
    sections: tuple[Section, ...]
    unknown: tuple[str, ...] = ()

    @property
    def used(self) -> int:
        """What ``MicroInterpreter::arena_used_bytes()`` returns."""
        return self.head + self.tail

    @property
    def exact(self) -> bool:
        return not self.unknown


@dataclass(frozen=True, slots=True)
class LayerFlash:
    """Bytes of the weights of one operator that no earlier operator has used."""

    name: str
    op: str
    bytes: int
    shared: int
    """Bytes that it uses and an earlier operator was counted for."""


@dataclass(frozen=True, slots=True)
class Flash:
    """The model as a constant array. ``total`` is the file, ``weights`` the distinct bytes of
    constants in it; the rest is the graph's own description."""

    total: int
    weights: int
    layers: tuple[LayerFlash, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """The operator at position ``operator`` of ``subgraph`` writes ``output`` over ``input``, the
    start of which is ``distance`` bytes above that of the output: 0 is in place.

    ``vendors`` are the kernel libraries that replace this operator's kernel by one of their own,
    for which it is not known whether that is right.
    """

    subgraph: int
    operator: int
    op: str
    input: str
    output: str
    distance: int
    vendors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlaps:
    """What a layout that the file brings along lets lie over one another while both are needed.

    ``shared`` is what the reference kernels bear. ``clashes`` are pairs of names of which no
    kernels are known to bear it. ``checked`` is False for layouts too large to look at.
    """

    shared: tuple[Shared, ...] = ()
    clashes: tuple[tuple[str, str], ...] = ()
    checked: bool = True

    @property
    def kind(self) -> Sharing:
        """The least that has to be allowed for ``shared``."""
        distances = {one.distance for one in self.shared}
        return "overlapping" if distances - {0} else "in-place" if distances else "none"

    def allowed(self, sharing: Sharing, kernels: str) -> bool:
        """Whether it is right with these kernels, and no more than ``sharing``."""
        kinds = get_args(Sharing)
        right = self.checked and not self.clashes
        borne = all(kernels not in shared.vendors for shared in self.shared)
        return right and borne and kinds.index(self.kind) <= kinds.index(sharing)


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """Where every byte of a model lives on a target.

    ``placements`` has every tensor of every subgraph by index, then the scratch buffers in the
    order of their requests. ``steps`` tells what runs in each scope. ``target`` and ``version``
    say for which chip family and which TensorFlow Lite Micro it holds. ``overlaps`` is what a
    layout in the file shares.
    """

    target: str
    version: str
    arena: Arena
    flash: Flash
    placements: tuple[Placement, ...]
    steps: tuple[Step, ...]
    overlaps: Overlaps = Overlaps()

    def __getitem__(self, name: str) -> Placement:
        """The placement of this name. Raises KeyError."""
        for placement in self.placements:
            if placement.name == name:
                return placement
        raise KeyError(name)

    def __iter__(self) -> Iterator[Placement]:
        return iter(self.placements)

    def planned(self) -> list[Placement]:
        """What lies in the non-persistent section, by offset, then by birth."""
        found = [p for p in self.placements if p.home == "arena"]
        return sorted(found, key=lambda p: (p.offset or 0, p.alive or (0, 0)))

    def sharing(self, name: str) -> list[str]:
        """Names of what has bytes of the arena in common with ``name``, at another time."""
        own = self[name]
        return [p.name for p in self.planned() if p.name != name and own.shares_with(p)]


__all__ = [
    "Arena",
    "Flash",
    "Home",
    "LayerFlash",
    "MemoryMap",
    "Overlaps",
    "Peak",
    "Placement",
    "Reason",
    "Section",
    "Shared",
    "Sharing",
]
