"""Tap points and their summaries as tables and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from layertap.cli.table import Column, Table
from layertap.core.captures import Capture, Summary, summarize
from layertap.core.dtypes import Array
from layertap.core.graph import TapPoint, format_shape, table_row

TAP_COLUMNS = (
    Column("#"),
    Column("name", shorten=True),
    Column("kind", drop=2),
    Column("op", drop=3),
    Column("dtype"),
    Column("shape"),
    Column("bytes", right=True),
    Column("quantization", drop=1, shorten=True),
)

SOURCE_COLUMN = Column("source", drop=4)

SUMMARY_COLUMNS = (
    Column("#"),
    Column("name", shorten=True),
    Column("dtype", drop=1),
    Column("shape", drop=2),
    Column("rows", right=True),
    Column("min", right=True),
    Column("max", right=True),
    Column("mean", right=True),
    Column("std", right=True),
    Column("zeros", right=True),
    Column("not finite", right=True),
)


HEARD_COLUMNS = (
    Column("#"),
    Column("name", shorten=True),
    Column("dtype", drop=1),
    Column("shape", drop=2),
    Column("min", right=True),
    Column("max", right=True),
    Column("mean", right=True),
)


def tap_table(taps: Iterable[TapPoint]) -> Table:
    """One line per tap point; bytes are those of one captured row. The line of code that computes
    it has a column where the runtime knows it."""
    taps = list(taps)
    sources = any(tap.source for tap in taps)
    rows: list[Sequence[str]] = []
    for tap in taps:
        name, *rest = table_row(tap)
        rows.append((tap.native, name, *rest, *([tap.source] if sources else [])))
    return Table((*TAP_COLUMNS, *([SOURCE_COLUMN] if sources else [])), rows)


def summary_table(captures: Mapping[str, Capture]) -> tuple[Table, dict[str, Summary]]:
    """One line of statistics per capture; every row is read."""
    summaries = {name: summarize(capture) for name, capture in captures.items()}
    rows = [_summary_row(captures[name], summary) for name, summary in summaries.items()]
    return Table(SUMMARY_COLUMNS, rows), summaries


def _summary_row(capture: Capture, summary: Summary) -> Sequence[str]:
    tap, some = capture.tap, summary.count > 0
    numbers = (summary.minimum, summary.maximum, summary.mean, summary.std)
    return (
        tap.native,
        tap.name,
        tap.dtype,
        format_shape(tap.row_shape),
        str(len(capture)) if len(capture) else "never ran",
        *(f"{number:.4g}" if some else "-" for number in numbers),
        f"{summary.zeros / summary.count:.1%}" if some else "-",
        str(summary.not_finite) if summary.not_finite else "",
    )


def heard_table(taps: Sequence[TapPoint], values: Mapping[str, Array]) -> Table:
    """One line per tap of one inference: its shape then, and what it held, in real numbers."""
    rows: list[Sequence[str]] = []
    for tap in taps:
        if tap.name not in values:
            rows.append((tap.native, tap.name, tap.dtype, "-", "-", "-", "-"))
            continue
        value, summary = values[tap.name], Summary()
        summary.add(value)
        numbers = (summary.minimum, summary.maximum, summary.mean)
        cells = [f"{number:.4g}" if summary.count else "-" for number in numbers]
        rows.append((tap.native, tap.name, tap.dtype, format_shape(value.shape), *cells))
    return Table(HEARD_COLUMNS, rows)


def heard_json(tap: TapPoint, summary: Summary) -> dict[str, Any]:
    """A tap point and the summary of what was heard of it, as JSON."""
    return {**tap_json(tap), "summary": _summary_json(summary)}


def tap_json(tap: TapPoint) -> dict[str, Any]:
    """A tap point as JSON; ``bytes`` are those of one captured row."""
    quantization = tap.quantization
    return {
        "name": tap.name,
        "also": list(tap.also),
        "native": tap.native,
        "kind": tap.kind,
        "op": tap.op,
        "dtype": tap.dtype,
        "shape": None if tap.shape is None else list(tap.shape),
        "per": tap.per,
        "bytes": tap.row_bytes,
        "quantization": None
        if quantization is None
        else {
            "scales": list(quantization.scales),
            "zero_points": list(quantization.zero_points),
            "axis": quantization.axis,
        },
        "operands": list(tap.operands),
        "untappable": tap.untappable,
        "source": tap.source,
    }


def capture_json(capture: Capture, summary: Summary | None) -> dict[str, Any]:
    """A tap point with its number of rows and, given one, its summary."""
    document = {**tap_json(capture.tap), "rows": len(capture)}
    if summary is not None:
        document["summary"] = _summary_json(summary)
    return document


def _summary_json(summary: Summary) -> dict[str, Any]:
    return {
        "min": _number(summary.minimum),
        "max": _number(summary.maximum),
        "mean": _number(summary.mean) if summary.count else None,
        "std": _number(summary.std),
        "zeros": summary.zeros,
        "finite": summary.count,
        "not_finite": summary.not_finite,
    }


def _number(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return value if math.isfinite(value) else None


__all__ = ["capture_json", "heard_json", "heard_table", "summary_table", "tap_json", "tap_table"]
