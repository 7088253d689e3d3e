"""A better layout, as people and programs read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import layertap
from layertap.arena import solver
from layertap.arena.memory_map import Arena
from layertap.arena.optimize import Layout
from layertap.cli.table import Column, Table, printable
from layertap.errors import LayertapError
from layertap.shrink import Optimized

_OTHERS = ("taps", "board", "log", "svg", "flash_svg", "html", "tensors", "layers")

_SHARED = (
    Column("operator"),
    Column("result", shorten=True),
    Column("over", shorten=True),
    Column("bytes below", right=True),
    Column("kernels of their own in", drop=1),
)

_REFERENCE = (
    "Right for the reference kernels, not for libraries with kernels of their own for these "
    "operators; --kernels says which library a build has."
)
_FURTHER = "--share overlapping goes further, for builds with the reference kernels."


def optimize(path: str, chip: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Find a better layout, write the model with it where that is asked for, and tell."""
    given = [f"--{name.replace('_', '-')}" for name in _OTHERS if options[name]]
    if given:
        raise LayertapError(
            f"{given[0]} does not go with --optimize",
            hint="write the new model with -o and give that to layertap memory",
        )
    arguments = {name: chip[name] for name in ("target", "version", "kernels")}
    found = layertap.optimize(path, **arguments, sharing=options["share"])
    output = options["output"]
    if output:
        found.write(output)
    if options["as_json"]:
        print(json.dumps(_document(path, found, output)))
        return
    for line in _facts(found):
        print(printable(line))
    if found.layout.shared and found.changed:
        print()
        _shared_table(found.layout).show(wide=options["wide"])
        if any(shared.vendors for shared in found.layout.shared):
            print(_REFERENCE)
    elif not found.changed and options["share"] == "in-place":
        print(_FURTHER)
    if output:
        print(f"written: {output}")


def _facts(found: Optimized) -> Iterator[str]:
    before, after, layout = found.before.arena, found.after.arena, found.layout
    at_least = "" if after.exact else "at least "
    if not found.changed:
        yield f"arena  {at_least}{before.minimum:,} bytes, as before: no lower layout was found"
        yield f"head   {before.head:,} bytes; {_bounds(layout)}"
        return
    fewer = _fewer(found.saved, after)
    yield f"arena  {at_least}{after.minimum:,} bytes instead of {before.minimum:,}, {fewer}"
    yield f"head   {after.head:,} bytes instead of {before.head:,}; {_bounds(layout)}"
    if found.verified:
        yield (
            f"proof  every output is the same, bit for bit, for {found.verified} random inputs in "
            "TensorFlow Lite Micro on this machine"
        )
    else:
        yield f"proof  none, the new model was not run: {found.unverified}"


def _fewer(saved: int, after: Arena) -> str:
    if saved < 0:
        return f"{-saved:,} more: the layout that it had shares what it may not"
    return f"{saved:,} fewer" if saved else f"as before: the {after.reason} decides"


def _bounds(layout: Layout) -> str:
    if layout.optimal:
        said = f"no layout needs less than {layout.bound:,}, proven"
    else:
        said = f"{layout.head - layout.bound:,} above the lower bound, {layout.bound:,}"
        if not solver.installed():
            said += " (pip install 'layertap[optimize]' has a solver for the rest)"
    if layout.bound_apart > layout.bound:
        said += f"; {layout.bound_apart:,} without sharing"
    return said


def _shared_table(layout: Layout) -> Table:
    rows = [
        [shared.op, shared.output, shared.input, f"{shared.distance:,}", ", ".join(shared.vendors)]
        for shared in layout.shared
    ]
    return Table(_SHARED, rows)


def _document(path: str, found: Optimized, output: str | None) -> dict[str, Any]:
    layout = found.layout
    return {
        "model": path,
        "changed": found.changed,
        "saved": found.saved,
        "before": _arena(found.before.arena),
        "after": _arena(found.after.arena),
        "lower_bound": layout.bound,
        "lower_bound_apart": layout.bound_apart,
        "optimal": layout.optimal,
        "gap": layout.gap,
        "solver": layout.solver,
        "shared": [
            {
                "subgraph": shared.subgraph,
                "operator": shared.operator,
                "op": shared.op,
                "result": shared.output,
                "operand": shared.input,
                "distance": shared.distance,
                "vendors": list(shared.vendors),
            }
            for shared in (layout.shared if found.changed else ())
        ],
        "verified": found.verified,
        "unverified": found.unverified,
        "written": output,
    }


def _arena(arena: Arena) -> dict[str, Any]:
    return {
        "minimum": arena.minimum,
        "reason": arena.reason,
        "head": arena.head,
        "tail": arena.tail,
        "unknown": list(arena.unknown),
    }


__all__ = ["optimize"]
