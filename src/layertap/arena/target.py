"""For which chip family and which TensorFlow Lite Micro a memory map holds."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.resources import files
from typing import Any

from layertap.errors import SourceError

REFERENCE = "reference"
"""The kernels of tflite-micro itself, which every target falls back to."""

KERNELS = (REFERENCE, "cmsis_nn", "ethos_u", "xtensa", "esp_nn", "arc_mli", "ceva", "hexagon")
"""Kernel libraries; only what the reference kernels ask for is known."""

Size = tuple[int, int]
"""Bytes and alignment of a structure."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the sizes of the interpreter's structures depend on.

    ``name`` is the chip family, ``version`` what was asked for, ``commit`` where the sizes were
    read. ``structs`` are the framework's own by C++ name, ``params`` what the parser of an operator
    allocates, ``op_data`` the bytes that its kernel keeps, both by operator. ``recording`` means
    the allocator that keeps statistics, ``compression`` a build with support for compressed
    constants. ``guess`` says why the table may not be the right one, else "".
    """

    name: str
    version: str
    commit: str
    pointer: int
    structs: Mapping[str, Size]
    params: Mapping[str, Size]
    op_data: Mapping[str, int]
    recording: bool = False
    compression: bool = False
    kernels: str = REFERENCE
    guess: str = ""


def load_target(
    name: str = "host",
    version: str | None = None,
    *,
    recording: bool | None = None,
    kernels: str = REFERENCE,
) -> Target:
    """The target called ``name``: ``"host"``, ``"cortex-m"`` or ``"ilp32"`` (xtensa, riscv32).

    ``version`` is a commit of tflite-micro or a version of its wheel. Without one it is, for the
    host, that of the installed wheel, and else the newest that is known. A version without a table
    is computed with the table nearest in time, and the result says so. ``recording`` says whether
    the allocator keeps statistics, as it does in the wheel; None is the target's default.

    Raises SourceError for a name or kernels that nobody knows.
    """
    if kernels not in KERNELS:
        raise SourceError(f"there are no kernels {kernels!r}", hint=f"known: {', '.join(KERNELS)}")
    tables = [table for table in _tables() if name in table["abis"]]
    if not tables:
        raise SourceError(f"there is no target {name!r}", hint=f"known: {', '.join(names())}")
    if version is None and name == "host":
        version = _wheel()
    found = [table for table in tables if version is None or _is(table, version)]
    table = found[-1] if found else _nearest(tables, version or "")
    target = _target(table, name, version)
    if not found:
        known = ", ".join(_label(table) for table in tables)
        target = replace(
            target,
            guess=f"there is no table for tflite-micro {version}; sizes are those of "
            f"{table['commit'][:7]} of {table['date']} (known: {known})",
        )
    plain = target.recording if recording is None else recording
    return replace(target, recording=plain, kernels=kernels)


def names() -> list[str]:
    """The targets that are known."""
    return list(dict.fromkeys(name for table in _tables() for name in table["abis"]))


@cache
def _tables() -> tuple[dict[str, Any], ...]:
    """The data files, oldest first."""
    folder = files("layertap.arena") / "targets"
    read = [json.loads(path.read_text("utf-8")) for path in folder.iterdir() if _is_data(path.name)]
    return tuple(sorted(read, key=lambda table: str(table["date"])))


def _is_data(name: str) -> bool:
    return name.endswith(".json")


def _is(table: Mapping[str, Any], version: str) -> bool:
    commit: str = table["commit"]
    same = commit.startswith(version) or version.startswith(commit)  # either may be shortened
    return version in table["wheels"] or (len(version) >= 7 and same)


def _label(table: Mapping[str, Any]) -> str:
    return " ".join([table["commit"][:7], *table["wheels"]])


def _nearest(tables: list[dict[str, Any]], version: str) -> dict[str, Any]:
    """The table nearest in time to a wheel, whose version holds its day; else the newest."""
    digits = version.removeprefix("0.dev")[:8]
    try:
        day = datetime.datetime.strptime(digits, "%Y%m%d").date()
    except ValueError:
        return tables[-1]
    return min(tables, key=lambda table: abs(datetime.date.fromisoformat(table["date"]) - day))


def _wheel() -> str | None:
    try:
        return installed_version("tflite-micro")
    except PackageNotFoundError:
        return None


def _target(table: Mapping[str, Any], name: str, version: str | None) -> Target:
    abi = table["abis"][name]
    return Target(
        name=name,
        version=version or _label(table).split()[-1],
        commit=table["commit"],
        pointer=abi["pointer"],
        structs={key: (size, alignment) for key, (size, alignment) in abi["structs"].items()},
        params={key: (size, alignment) for key, (size, alignment) in abi["params"].items()},
        op_data=abi["op_data"],
        recording=abi["recording"],
        compression=abi["compression"],
    )


__all__ = ["KERNELS", "REFERENCE", "Size", "Target", "load_target", "names"]
