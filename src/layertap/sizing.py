"""How much memory a model takes on a device, told from its file."""

from __future__ import annotations

from pathlib import Path

from layertap.arena.mapping import memory_map, tapped
from layertap.arena.memory_map import MemoryMap
from layertap.arena.target import REFERENCE, load_target
from layertap.core.select import Selector, select
from layertap.errors import SourceError, Untappable
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
    Raises SourceError, CorruptModel, SelectionError or Untappable.
    """
    data = source if isinstance(source, bytes) else _read(Path(source))
    chip = load_target(target, version, recording=recording, kernels=kernels)
    model = parse(data)
    return memory_map(model if taps is None else tapped(model, _chosen(model, taps)), chip)


def _chosen(model: TfliteModel, taps: Selector) -> list[int]:
    chosen = []
    for tap in select(tap_graph(model).graph, taps):
        if tap.untappable:
            raise Untappable(f"{tap.name!r} cannot be read: {tap.untappable}")
        if tap.subgraph == MAIN and tap.kind not in ("input", "weight") and tap.index is not None:
            chosen.append(tap.index)
    return chosen


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{str(path)!r} cannot be read: {error.strerror}", hint="check the path"
        ) from error


__all__ = ["memory"]
