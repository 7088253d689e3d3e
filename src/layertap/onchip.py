"""A model on a board: firmware for it, and what it sends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import layertap
from layertap.arena.mapping import memory_map
from layertap.arena.memory_map import Shared
from layertap.arena.shared import check_layout
from layertap.arena.target import REFERENCE, load_target
from layertap.core.files import read_whole
from layertap.core.graph import TapPoint
from layertap.core.select import Selector
from layertap.core.units import parse_bytes
from layertap.errors import LayertapError, MissingRuntime, PlanError
from layertap.firmware.generate.arena_size import ArenaSize, given, predicted, with_margin
from layertap.firmware.generate.folder import write_folder
from layertap.firmware.generate.operators import registrations
from layertap.firmware.generate.platforms import Platform, platform_named
from layertap.firmware.generate.project import Kind, Project, is_yours, project_files
from layertap.firmware.generate.tap_table import check_can_be_outputs, tap_table
from layertap.runtimes.tflm import TflmSession
from layertap.tflite.edit import with_outputs
from layertap.tflite.graph import MAIN
from layertap.tflite.model import TfliteModel, parse

RULES = 4
"""Slices, reductions and rates that the host can set on generated firmware."""

MOST_RULES = 255

_ENOUGH = 1 << 16
"""Bytes that are tried first."""

_PRECISION = 64
"""Bytes by which an arena that was found by trying may be larger than it has to be."""


@dataclass(frozen=True, slots=True)
class Firmware:
    """A folder with the source of a firmware.

    ``kind``: a ``"host"`` drives it, or it runs by itself with its taps ``"fixed"`` or as
    ``"outputs"``.
    ``files`` are the paths in it; ``written``, ``unchanged``, ``left`` (changed by you, and yours)
    and ``removed`` what became of them. ``operators`` are those that the firmware registers,
    ``custom`` the C++ functions that you write, by operator. ``arena`` is its size in bytes on
    32-bit chips, ``arena_origin`` where that comes from, ``arena_guessed`` what may ask for more
    and is not known. ``taps`` are sent from the start; all of ``readable`` can be asked for.
    ``port`` is where the host finds such a board.
    """

    folder: Path
    platform: str
    kind: Kind
    files: tuple[str, ...]
    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    left: tuple[str, ...]
    removed: tuple[str, ...]
    operators: tuple[str, ...]
    custom: dict[str, str]
    arena: int
    arena_origin: str
    arena_guessed: tuple[str, ...]
    taps: tuple[str, ...]
    readable: int
    port: str


def generate_firmware(
    source: str | Path | bytes,
    to: str | Path,
    platform: str = "generic",
    *,
    taps: Selector = None,
    fixed: bool = False,
    outputs: bool = False,
    rules: int = RULES,
    arena: int | str | None = None,
    kernels: str | None = None,
    overwrite: bool = False,
) -> Firmware:
    """Write the source of a firmware that runs a .tflite file and sends any tensor of it.

    ``platform``: ``"generic"``, ``"arduino"``, ``"esp-idf"``, ``"zephyr"``, ``"pico"`` or
    ``"qemu-mps2"``. ``taps`` are sent from the start, None for none; the host chooses others while
    the firmware runs, unless ``fixed``. ``outputs``: instead of tapping, the model gets ``taps`` as
    further outputs, which the firmware reads by name. ``rules``: how many slices and reductions the
    host can set. ``arena``: its size in bytes, or a text such as ``"96K"``; None works it out.
    ``kernels``: the library that the build takes its kernels from, as in :func:`layertap.memory`;
    None for those that are usual on the platform.

    The same arguments give the same bytes. A folder that holds other files, or generated ones that
    were changed since, is refused unless ``overwrite``.

    Raises SourceError, CorruptModel, SelectionError, Untappable, PlanError for a model that
    TensorFlow Lite Micro cannot run, or whose own layout is not known to be right with the kernels,
    LayertapError for a platform that nobody knows, StoreError.
    """
    chosen = platform_named(platform)
    kind = _kind(taps, fixed, outputs)
    _check_rules(rules, kind)
    model = parse(read_whole(source))
    table = tap_table(model, taps)
    if kind == "outputs":
        check_can_be_outputs(table.chosen)
        model = parse(with_outputs(model.data, [tap.point.index for tap in table.chosen]))
    libraries = _libraries(chosen, kernels)
    project = Project(
        model=model,
        file="model.tflite" if isinstance(source, bytes) else Path(source).name,
        platform=chosen,
        kind=kind,
        table=table,
        registrations=registrations(model),
        arena=_arena(model, chosen, libraries, arena),
        shared=_shared(model, chosen, libraries),
        rules=rules,
        version=layertap.__version__,
        command=tuple(_command(source, platform, taps) + _options(kind, rules, arena, kernels)),
    )
    return _written(project, Path(to), overwrite)


def _kind(taps: Selector, fixed: bool, outputs: bool) -> Kind:
    if fixed and outputs:
        raise PlanError("fixed taps and outputs are two ways", hint="choose one of them")
    if fixed and taps is None:
        raise PlanError(
            "the taps are to be fixed, and none are given", hint="name them, as in taps='conv*'"
        )
    return "fixed" if fixed else "outputs" if outputs else "host"


def _libraries(platform: Platform, kernels: str | None) -> tuple[str, ...]:
    """The libraries of kernels that the build may have; none for the reference kernels alone.
    Raises SourceError for one that nobody knows."""
    if kernels is None:
        return platform.kernels
    load_target(platform.targets[0], kernels=kernels)
    return () if kernels == REFERENCE else (kernels,)


def _shared(model: TfliteModel, platform: Platform, libraries: Sequence[str]) -> tuple[Shared, ...]:
    """What the layout in ``model`` lets lie over one another. Raises PlanError where that is not
    known to be right with the kernels."""
    laid_out = memory_map(model, load_target(platform.targets[0]))
    check_layout(laid_out, libraries)
    return laid_out.overlaps.shared


def _check_rules(rules: int, kind: Kind) -> None:
    if not 0 <= rules <= MOST_RULES:
        raise PlanError(f"{rules} rules are not possible", hint=f"0 to {MOST_RULES} are")
    if rules != RULES and kind != "host":
        raise PlanError(
            f"rules are set by the host, and nobody sets any with {kind}", hint="leave rules out"
        )


def _written(project: Project, folder: Path, overwrite: bool) -> Firmware:
    made = project_files(project)
    done = write_folder(folder, made, is_yours=is_yours, overwrite=overwrite)
    return Firmware(
        folder=folder,
        platform=project.platform.name,
        kind=project.kind,
        files=tuple(made),
        written=done.written,
        unchanged=done.unchanged,
        left=done.left,
        removed=done.removed,
        operators=tuple(r.name for r in project.registrations),
        custom={r.name: r.function for r in project.customs},
        arena=project.arena.narrow,
        arena_origin=project.arena.origin,
        arena_guessed=project.arena.guessed,
        taps=tuple(tap.point.name for tap in project.table.chosen),
        readable=len(project.table.taps),
        port=project.platform.port,
    )


def _command(source: str | Path | bytes, platform: str, taps: Selector) -> list[str]:
    """The command that makes the same files; a function that selects is told as dots."""
    file = "model.tflite" if isinstance(source, bytes) else Path(source).name
    words = ["layertap", "firmware", file, "--platform", platform]
    for one in taps if isinstance(taps, Iterable) and not isinstance(taps, str) else (taps,):
        name = one.name if isinstance(one, TapPoint) else one
        words += [] if one is None else ["--taps", name if isinstance(name, str) else "..."]
    return words


def _options(kind: Kind, rules: int, arena: int | str | None, kernels: str | None) -> list[str]:
    words = [] if kind == "host" else [f"--{kind}"]
    words += ["--rules", str(rules)] if rules != RULES else []
    words += ["--kernels", kernels] if kernels is not None else []
    words += ["--arena", str(arena)] if arena is not None else []
    return [*words, "-o", "."]


def _arena(
    model: TfliteModel, platform: Platform, libraries: Sequence[str], size: int | str | None
) -> ArenaSize:
    found = predicted(model, platform.targets, libraries)
    if size is not None:
        try:
            return given(parse_bytes(size, binary=True), found)
        except ValueError as error:
            raise PlanError(str(error), hint="give the arena in bytes, or as '96K'") from error
    return _tried(model, found) if found.unknown else found


def _tried(model: TfliteModel, found: ArenaSize) -> ArenaSize:
    """The smallest arena in which the interpreter on this machine takes the model, with a margin;
    chips need less, since their pointers are smaller. Raises PlanError where that is not known."""
    why = "; ".join(found.unknown)
    low, high = 0, _first_that_loads(model.data, found.wide, why)
    while high - low > _PRECISION:
        middle = (low + high) // 32 * 16
        low, high = (low, middle) if _failure(model.data, middle) is None else (middle, high)
    size = with_margin(high)
    origin = f"found by trying on a 64-bit machine, for want of {why}; with a margin"
    return ArenaSize(size, size, origin, guessed=found.guessed)


def _first_that_loads(data: bytes, least: int, why: str) -> int:
    size, error = max(least + -least % 16, _ENOUGH), None
    for _ in range(8):
        error = _failure(data, size)
        if error is None:
            return size
        if isinstance(error, MissingRuntime):
            raise PlanError(
                f"how large an arena the model needs is not known: {why}",
                hint="give arena, as in arena='96K', or install the wheel that tries it: "
                "pip install 'layertap[tflm]'",
            ) from error
        size *= 2
    assert error is not None
    raise PlanError(
        f"how large an arena the model needs is not known ({why}), and on this machine: "
        f"{error.message}",
        hint="give arena, as in arena='96K', if you are sure that the board can run it",
    ) from error


def _failure(data: bytes, arena: int) -> LayertapError | None:
    """Why the interpreter on this machine does not take a model with this arena, if so."""
    try:
        with closing(TflmSession(data, arena=arena)) as session:
            names = set(session.model.subgraphs[MAIN].outputs)
            session.prepare([t for t in session.graph if t.subgraph == MAIN and t.index in names])
    except LayertapError as error:
        return error
    return None


__all__ = ["RULES", "Firmware", "generate_firmware"]
