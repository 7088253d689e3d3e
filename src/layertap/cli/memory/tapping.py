"""What taps cost, and the passes that fit an arena, as people and programs read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import layertap
from layertap.arena.passes import Passes
from layertap.arena.price import Price
from layertap.cli.table import Column, Table, printable
from layertap.errors import LayertapError

_PRICES = (
    Column("#"),
    Column("name", shorten=True),
    Column("op", drop=1),
    Column("bytes", right=True),
    Column("head", right=True),
    Column("tail", right=True),
    Column("arena", right=True),
)

_PASSES = (
    Column("pass", right=True),
    Column("arena", right=True),
    Column("spare", right=True),
    Column("taps", right=True),
    Column("", shorten=True),
)

_OTHERS = ("board", "log", "svg", "flash_svg", "html", "tensors", "layers")


def price(path: str, chip: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Tell what each of the taps costs alone."""
    _alone("--price", options)
    taps = options["taps"] or None
    found = layertap.prices(path, taps, **chip)
    without, together = (layertap.memory(path, taps=t, **chip).arena for t in (None, taps or "*"))
    if options["as_json"]:
        priced = [{field: getattr(row, field) for field in Price.__slots__} for row in found]
        facts = {"without": without.minimum, "together": together.minimum}
        print(json.dumps({"model": path, **_chip(chip), "arena": facts, "prices": priced}))
        return
    least = "" if without.exact else "at least "
    print(f"arena  {least}{without.minimum:,} bytes without taps, {together.minimum:,} with these")
    print(f"taps   {len(found)}, {sum(p.head <= 0 for p in found)} of them for nothing in the head")
    print()
    rows = [
        (
            f"#{p.index}",
            p.name,
            p.op,
            f"{p.bytes:,}",
            _more(p.head),
            _more(p.tail),
            _more(p.minimum),
        )
        for p in found
    ]
    Table(_PRICES, rows).show(wide=options["wide"])
    _unknown(without.unknown)


def split(path: str, chip: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Tell the passes in which the taps fit the arena."""
    _alone("--arena", options)
    found = layertap.passes(path, options["taps"] or "*", options["arena"], **chip)
    if options["as_json"]:
        print(json.dumps(_document(path, chip, found)))
        return
    count = len(found.groups)
    taps = sum(map(len, found.groups))
    print(f"passes {count} for {taps} taps in {found.arena:,} bytes, {_fewer(found)}")
    print()
    rows = [
        (str(n), f"{needed:,}", f"{found.arena - needed:,}", str(len(group)), _names(group))
        for n, (group, needed) in enumerate(zip(found.taps, found.needs, strict=True), 1)
    ]
    Table(_PASSES, rows).show(wide=options["wide"])
    _unknown(found.unknown)


def _alone(flag: str, options: Mapping[str, Any]) -> None:
    given = [f"--{name.replace('_', '-')}" for name in _OTHERS if options[name]]
    if given:
        raise LayertapError(
            f"{given[0]} does not go with {flag}",
            hint="--taps alone shows the arena with these taps, pictures included",
        )


def _chip(chip: Mapping[str, Any]) -> dict[str, Any]:
    return {name: chip[name] for name in ("target", "version", "kernels")}


def _document(path: str, chip: Mapping[str, Any], found: Passes) -> dict[str, Any]:
    each = zip(found.taps, found.groups, found.needs, strict=True)
    return {
        "model": path,
        **_chip(chip),
        "arena": found.arena,
        "passes": [
            {"taps": list(names), "indices": list(group), "arena": needed}
            for names, group, needed in each
        ],
        "at_least": found.at_least,
        "fewest": found.fewest,
        "unknown": list(found.unknown),
    }


def _fewer(found: Passes) -> str:
    if found.fewest:
        return "fewer are not possible"
    return f"at least {found.at_least} are needed"


def _names(group: Sequence[str]) -> str:
    return ", ".join(group)


def _more(count: int) -> str:
    return f"{count:+,}" if count else "0"


def _unknown(what: Sequence[str]) -> None:
    for line in what:
        print(printable(f"unknown: {line}"))


__all__ = ["price", "split"]
