"""``layertap ls``: what can be read of a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import click

from layertap.cli.options import (
    input_options,
    json_option,
    runtime_choice,
    runtime_options,
    source_argument,
    taps_option,
    traced,
)
from layertap.cli.source import open_model
from layertap.cli.table import counted
from layertap.cli.taps import tap_json, tap_table
from layertap.core.graph import Graph, Kind, TapPoint
from layertap.core.select import select
from layertap.core.units import format_bytes
from layertap.errors import NoSuchTap


@click.command(short_help="list what can be read of a model")
@source_argument
@taps_option("Only these: a name, a glob, op:CONV_2D, #17, kind:weight, re:..., with | & ~.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(get_args(Kind)),
    help="Only this kind of tap point. Repeat for more.",
)
@runtime_options
@input_options
@click.option("--wide", is_flag=True, help="Do not fit the table to the terminal.")
@json_option
def ls(
    source: str,
    taps: tuple[str, ...],
    kinds: tuple[str, ...],
    wide: bool,
    as_json: bool,
    **shared: Any,
) -> None:
    """List the tap points of SOURCE: a model file, or MODULE:NAME for a live model.

    Bytes are those of one row of captures: one sample, or the whole tensor for weights. Inputs
    serve as an example, where the runtime needs one.
    """
    graph = _open(source, shared)
    chosen = _chosen(graph, taps, kinds)
    if as_json:
        print(json.dumps(_document(source, graph, chosen)))
        return
    tap_table(chosen).show(wide=wide)
    print(_totals(chosen))
    if not graph.complete:
        click.echo(
            "Not complete: this runtime learns calls, shapes and dtypes from an example. "
            "Give one with --input FILE or --random SEED.",
            err=True,
        )


def _open(source: str, shared: Mapping[str, Any]) -> Graph:
    runtime, options = runtime_choice(shared)
    with open_model(source, runtime, options) as model:
        return traced(model, shared)


def _chosen(graph: Graph, taps: tuple[str, ...], kinds: tuple[str, ...]) -> tuple[TapPoint, ...]:
    chosen = select(graph, taps) if taps else graph.taps
    if kinds:
        chosen = tuple(tap for tap in chosen if tap.kind in kinds)
    if not chosen:
        there = ", ".join(dict.fromkeys(tap.kind for tap in graph)) or "none"
        raise NoSuchTap(f"no tap point of the kind {' or '.join(kinds)}", hint=f"there is {there}")
    return chosen


def _bytes(taps: Iterable[TapPoint]) -> tuple[int, int]:
    """Bytes of the known rows, and how many are unknown."""
    sizes = [tap.row_bytes for tap in taps]
    return sum(size for size in sizes if size is not None), sizes.count(None)


def _totals(taps: tuple[TapPoint, ...]) -> str:
    parts = []
    weights = [tap for tap in taps if tap.per == "run"]
    rest = [tap for tap in taps if tap.per != "run"]
    for group, what in ((rest, "a sample"), (weights, "of weights")):
        known, unknown = _bytes(group)
        if group:
            size = f"{known:,} bytes ({format_bytes(known)})" if known >= 1024 else f"{known} bytes"
            parts.append(f"{size} {what}" + (f" and {unknown} of unknown size" if unknown else ""))
    return f"{counted(len(taps), 'tap point')}, {', '.join(parts)}"


def _document(source: str, graph: Graph, taps: tuple[TapPoint, ...]) -> dict[str, Any]:
    known, unknown = _bytes(taps)
    return {
        "source": source,
        "complete": graph.complete,
        "taps": [tap_json(tap) for tap in taps],
        "bytes": None if unknown else known,
    }


__all__ = ["ls"]
