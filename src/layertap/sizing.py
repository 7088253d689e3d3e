"""How much memory a model takes on a device, told from its file."""

from __future__ import annotations

from pathlib import Path

from layertap.arena.mapping import memory_map, tapped
from layertap.arena.memory_map import MemoryMap
from layertap.arena.passes import Passes
from layertap.arena.passes import passes as passes_of
from layertap.arena.price import Price
from layertap.arena.price import prices as tap_prices
from layertap.arena.shared import check_layout
from layertap.arena.target import REFERENCE, Target, load_target
from layertap.core.files import read_whole
from layertap.core.plan import check_readable
from layertap.core.select import Selector, select
from layertap.core.units import parse_bytes
from layertap.errors import PlanError
from layertap.tflite.edit import OFFLINE_PLAN
from layertap.tflite.graph import MAIN, tap_graph
from layertap.tflite.model import TfliteModel, parse


def memory(
    source: str | Path | bytes,
    target: str = "host",
    *,
    version: str | None = None,
    recording: bool | None = None,
    kernels: str = REFERENCE,
    taps: Selector = None,
) -> MemoryMap:
    """Where every byte of a .tflite file, or of its bytes, lives in TensorFlow Lite Micro.

    ``target``: the chip family, ``"host"`` (the wheel on this machine), ``"cortex-m"`` or
    ``"ilp32"`` (xtensa, riscv32). ``version``: a commit of tflite-micro or a version of its wheel;
    None for the installed wheel on the host, else the newest that is known. ``recording``: whether
    the allocator keeps statistics, None for what is usual there. ``kernels``: the library that the
    kernels come from. ``taps``: what is read besides the model's outputs; None for nothing.

    What no table covers is named in ``.arena.unknown``; the figures then hold what is known.
    Raises SourceError, CorruptModel, SelectionError or Untappable, and PlanError for a file whose
    own layout is not known to be right with ``kernels``.
    """
    chip = load_target(target, version, recording=recording, kernels=kernels)
    model = _checked(source, chip)
    return memory_map(model if taps is None else tapped(model, _chosen(model, taps)), chip)


def prices(
    source: str | Path | bytes,
    taps: Selector = None,
    target: str = "host",
    *,
    version: str | None = None,
    recording: bool | None = None,
    kernels: str = REFERENCE,
) -> list[Price]:
    """What each of ``taps`` alone adds to the arena, in bytes; None for everything that the model
    computes. The rest is as in :func:`memory`."""
    chip = load_target(target, version, recording=recording, kernels=kernels)
    model = _checked(source, chip)
    return tap_prices(model, chip, None if taps is None else set(_chosen(model, taps)))


def passes(
    source: str | Path | bytes,
    taps: Selector,
    arena: int | str,
    target: str = "host",
    *,
    version: str | None = None,
    recording: bool | None = None,
    kernels: str = REFERENCE,
) -> Passes:
    """The passes in which ``taps`` can be read with an arena of ``arena`` bytes, or a text such as
    ``"96K"``. ``layertap.open(source, "tflm", arena=arena)`` runs such passes by itself.

    Raises ArenaExceeded with the bytes that are lacking, and what :func:`memory` raises.
    """
    chip = load_target(target, version, recording=recording, kernels=kernels)
    model = _checked(source, chip)
    try:
        room = parse_bytes(arena, binary=True)
    except ValueError as error:
        raise PlanError(str(error), hint="give the arena in bytes, or as '96K'") from error
    return passes_of(model, chip, _chosen(model, taps), room)


def _checked(source: str | Path | bytes, chip: Target) -> TfliteModel:
    """The model, whose own layout, if it has one, is right with the kernels of ``chip``."""
    model = parse(read_whole(source))
    if OFFLINE_PLAN in model.metadata:
        check_layout(memory_map(model, chip), [chip.kernels])
    return model


def _chosen(model: TfliteModel, taps: Selector) -> list[int]:
    selected = select(tap_graph(model).graph, taps)
    check_readable(selected)
    return [
        tap.index
        for tap in selected
        if tap.subgraph == MAIN and tap.kind not in ("input", "weight")
    ]


__all__ = ["memory", "passes", "prices"]
