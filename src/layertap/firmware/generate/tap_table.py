"""The taps of a model as a firmware knows them: by their bits in the mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from layertap.core.graph import TapPoint
from layertap.core.plan import check_readable
from layertap.core.select import Selector, select
from layertap.errors import PlanError, Untappable
from layertap.firmware.generate.identifiers import identifiers
from layertap.firmware.wire.elements import NUMBERS
from layertap.tflite.graph import MAIN, tap_graph, tensor_names
from layertap.tflite.model import TfliteModel

CPP_TYPES = {
    **{name: f"{name}_t" for name in ("int8", "int16", "int32", "int64", "uint8", "uint16")},
    **{"uint32": "uint32_t", "uint64": "uint64_t", "bool": "bool"},
    **{"float32": "float", "float64": "double"},
}
"""Types of elements that accessors hand out."""


@dataclass(frozen=True, slots=True)
class Tap:
    """A tensor that a board can send. ``bit`` is its place in the mask, ``identifier`` its name in
    C++ without prefix."""

    bit: int
    identifier: str
    point: TapPoint


@dataclass(frozen=True, slots=True)
class TapTable:
    """``tensors`` and ``subgraphs`` are those of the model. ``taps`` are all that can be read, by
    bit; ``chosen`` those that are sent from the start."""

    tensors: int
    subgraphs: int
    taps: tuple[Tap, ...]
    chosen: tuple[Tap, ...]

    @property
    def mask(self) -> bytes:
        """Bit 0 of byte 0 is tensor 0 of subgraph 0."""
        return mask_of((tap.bit for tap in self.chosen), self.tensors)


def mask_of(bits: Iterable[int], count: int) -> bytes:
    """A mask of ``count`` bits in which ``bits`` are set."""
    mask = bytearray((count + 7) // 8)
    for bit in bits:
        mask[bit // 8] |= 1 << bit % 8
    return bytes(mask)


def tap_table(model: TfliteModel, taps: Selector | Sequence[str]) -> TapTable:
    """What a board that runs ``model`` can send; ``taps`` are chosen, None for none of them.

    Raises SelectionError, NoSuchTap with near names, and Untappable, for weights too.
    """
    graph = tap_graph(model, inside=True, readable=frozenset(NUMBERS)).graph
    first = [0]
    for subgraph in model.subgraphs:
        first.append(first[-1] + len(subgraph.tensors))
    names = identifiers([name for own in tensor_names(model) for name in own])
    found = (Tap(first[p.subgraph] + p.index, "", p) for p in graph if _is_sent(p))
    rows = tuple(
        Tap(tap.bit, names[tap.bit], tap.point) for tap in sorted(found, key=lambda tap: tap.bit)
    )
    wanted = () if taps is None else select(graph, taps)
    _check(wanted)
    chosen = {point.name for point in wanted}
    return TapTable(
        tensors=first[-1],
        subgraphs=len(model.subgraphs),
        taps=rows,
        chosen=tuple(tap for tap in rows if tap.point.name in chosen),
    )


def check_can_be_outputs(taps: Sequence[Tap]) -> None:
    """Raise Untappable for a tap inside a subgraph that an operator runs and for elements that C++
    has no type for, and PlanError for no taps.

    Whether the tensors of the main subgraph can be outputs is known to the module that edits."""
    if not taps:
        raise PlanError(
            "outputs are to be added, and no taps are given", hint="name them, as in taps='conv*'"
        )
    for tap in taps:
        if tap.point.subgraph != MAIN:
            raise Untappable(
                f"{tap.point.name!r} cannot be made an output: it lives inside a subgraph that an "
                "operator runs",
                hint="leave outputs out: a tap reads it without changing the model",
            )
        if tap.point.dtype not in CPP_TYPES:
            raise Untappable(
                f"{tap.point.name!r} holds {tap.point.dtype}, for which C++ has no type",
                hint="leave outputs out: a tap reads it, too",
            )


def _is_sent(point: TapPoint) -> bool:
    return point.kind != "weight" and not point.untappable


def _check(points: Sequence[TapPoint]) -> None:
    for point in points:
        if point.kind == "weight":
            raise Untappable(
                f"{point.name!r} is a weight: a board does not send what is in the file",
                hint="layertap reads weights from the .tflite; select what is computed",
            )
    check_readable(points)


__all__ = ["CPP_TYPES", "Tap", "TapTable", "check_can_be_outputs", "mask_of", "tap_table"]
