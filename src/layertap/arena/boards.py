"""Boards: what memory they have, and whether a model fits."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from layertap.core.units import parse_bytes
from layertap.errors import LayertapError

Kind = Literal["flash", "ram"]

TARGETS = ("host", "cortex-m", "ilp32")

MOST = 1 << 48
"""Bytes that no memory of a microcontroller has."""

_KEYS = {"name", "chip", "source", "target", "code", "note", "place", "memory"}
_REGION_KEYS = {"kind", "bytes", "reserved", "external", "note"}
_PLACES = {"model", "arena", "code"}


@dataclass(frozen=True, slots=True)
class Region:
    """One memory: ``bytes`` in all, of which ``reserved`` are taken by what is neither the model,
    the arena nor the program (a bootloader, a cache). ``external``: outside the chip."""

    name: str
    kind: Kind
    bytes: int
    reserved: int = 0
    external: bool = False
    note: str = ""

    @property
    def usable(self) -> int:
        return self.bytes - self.reserved


@dataclass(frozen=True, slots=True)
class Board:
    """``model``, ``arena`` and ``program`` name the regions in which the model file, the arena and
    the program are kept; ``code`` is the program's size in bytes, None while it is not known.
    ``target`` is the chip family, ``source`` the datasheet."""

    name: str
    chip: str
    source: str
    target: str
    regions: tuple[Region, ...]
    model: str
    arena: str
    program: str
    code: int | None = None
    note: str = ""

    def __getitem__(self, name: str) -> Region:
        """The region of this name. Raises KeyError."""
        for region in self.regions:
            if region.name == name:
                return region
        raise KeyError(name)


def board_names() -> list[str]:
    """The boards that come with layertap."""
    found = (entry.name for entry in files("layertap.arena").joinpath("boards").iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def load_board(name_or_path: str | Path) -> Board:
    """A board that comes with layertap, by name, or one described in a TOML file.

    Raises LayertapError for a name that is not known, and for a file that does not describe a
    board, with the key that is wrong.
    """
    text = str(name_or_path)
    if text.lower() in board_names():
        entry = files("layertap.arena").joinpath("boards", f"{text.lower()}.toml")
        return _Reader(text.lower(), entry.read_text(encoding="utf-8")).board()
    if not text.endswith(".toml"):
        near = difflib.get_close_matches(text.lower(), board_names(), 3, 0.4)
        known = f"near names: {', '.join(near)}" if near else f"there is {', '.join(board_names())}"
        raise LayertapError(f"no board is called {text!r}", hint=f"{known}; or give a .toml file")
    try:
        content = Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise LayertapError(f"{text}: {reason}", hint="give the path of a board file") from error
    return _Reader(text, content).board()


class _Reader:
    """Reads a description and says of what is wrong where it stands."""

    def __init__(self, where: str, text: str) -> None:
        self.where = where
        try:
            self.data = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise self.wrong(f"it is no TOML: {error}") from error

    def wrong(self, what: str) -> LayertapError:
        return LayertapError(
            f"{self.where}: {what}", hint="docs/memory.md shows a board file with every key"
        )

    def board(self) -> Board:
        self._known(self.data, _KEYS, "")
        memory, place = self._table(self.data, "memory"), self._table(self.data, "place")
        self._known(place, _PLACES, "place.")
        regions = tuple(self._region(name, memory) for name in memory)
        target = self._text(self.data, "target")
        if target not in TARGETS:
            raise self.wrong(f"target is {target!r}, not one of {', '.join(TARGETS)}")
        model = self._place(place, "model", regions)
        return Board(
            name=self._text(self.data, "name"),
            chip=self._text(self.data, "chip", ""),
            source=self._text(self.data, "source", ""),
            target=target,
            regions=regions,
            model=model,
            arena=self._place(place, "arena", regions),
            program=self._place(place, "code", regions) if "code" in place else model,
            code=self._bytes(self.data, "code", "") if "code" in self.data else None,
            note=self._text(self.data, "note", ""),
        )

    def _region(self, name: str, memory: Mapping[str, Any]) -> Region:
        table, at = self._table(memory, name, "memory."), f"memory.{name}."
        self._known(table, _REGION_KEYS, at)
        kind = self._text(table, "kind", at=at)
        if kind not in get_args(Kind):
            raise self.wrong(f"{at}kind is {kind!r}, not flash or ram")
        size = self._bytes(table, "bytes", at)
        reserved = self._bytes(table, "reserved", at) if "reserved" in table else 0
        if reserved > size:
            raise self.wrong(
                f"{at}reserved is {reserved:,}, more than the {size:,} bytes there are"
            )
        external = table.get("external", False)
        if not isinstance(external, bool):
            raise self.wrong(f"{at}external is {external!r}, not true or false")
        note = self._text(table, "note", "", at)
        return Region(name, "flash" if kind == "flash" else "ram", size, reserved, external, note)

    def _known(self, table: Mapping[str, Any], keys: set[str], at: str) -> None:
        for key in table:
            if key not in keys:
                raise self.wrong(f"{at}{key} is no key; there is {', '.join(sorted(keys))}")

    def _table(self, parent: Mapping[str, Any], key: str, at: str = "") -> Mapping[str, Any]:
        value = parent.get(key)
        if not isinstance(value, dict) or not value:
            raise self.wrong(f"it has no table [{at}{key}]")
        return value

    def _text(
        self, table: Mapping[str, Any], key: str, default: str | None = None, at: str = ""
    ) -> str:
        value = table.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(f"{at}{key} is {'missing' if value is None else 'not a text'}")
        return value

    def _bytes(self, table: Mapping[str, Any], key: str, at: str) -> int:
        value = table.get(key)
        try:
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise ValueError
            size = parse_bytes(value, binary=True)
        except (ValueError, OverflowError) as error:
            what = "missing" if value is None else f"{value!r}"
            raise self.wrong(f"{at}{key} is {what}; write bytes, or a text as '256KiB'") from error
        if not 0 <= size <= MOST:
            raise self.wrong(f"{at}{key} is {size:,}, which is no size of a memory")
        return size

    def _place(self, place: Mapping[str, Any], key: str, regions: tuple[Region, ...]) -> str:
        name = self._text(place, key, at="place.")
        if name not in {region.name for region in regions}:
            there = ", ".join(region.name for region in regions)
            raise self.wrong(f"place.{key} is {name!r}; there is {there}")
        return name


__all__ = ["TARGETS", "Board", "Kind", "Region", "board_names", "load_board"]
