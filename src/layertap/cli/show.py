"""``layertap show``: what a run on disk holds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layertap.cli.completion import files
from layertap.cli.invocation import program
from layertap.cli.options import json_option, taps_option
from layertap.core.messages import listed
from layertap.errors import NoSuchTap, SelectionError, StoreError

if TYPE_CHECKING:
    import numpy as np

    from layertap.core.captures import Capture, Run
    from layertap.core.dtypes import Array

SHOWN = 1000
"""Values of an array beyond which NumPy prints its edges only."""


@click.command(short_help="what a run on disk holds")
@click.argument("run", shell_complete=files)
@taps_option("Only these, selected as in capture.")
@click.option("--sample", type=int, metavar="N", help="Print the values of one sample of one tap.")
@click.option("--raw", is_flag=True, help="What the runtime held, not the real numbers.")
@click.option("--save", metavar="FILE.npy", help="Write the values of one tap to a NumPy file.")
@click.option("--wide", is_flag=True, help="Do not fit the table to the terminal.")
@json_option
def show(
    run: str,
    taps: tuple[str, ...],
    sample: int | None,
    raw: bool,
    save: str | None,
    wide: bool,
    as_json: bool,
) -> None:
    """Show the run on disk at RUN: where it comes from, its taps, and a summary of each.

    With one tap, --sample prints its values and --save writes them; both at once write one sample.
    """
    import layertap

    loaded = layertap.load(run)
    captures = _chosen(loaded, taps, run) if taps else dict(loaded)
    if sample is None and save is None:
        _print_summaries(loaded, captures, wide, as_json)
        return
    capture = _only(captures)
    if save is not None:
        _save(capture, sample, raw, Path(save), as_json)
        return
    assert sample is not None
    _print_values(capture, sample, raw, as_json)


def _chosen(run: Run, taps: tuple[str, ...], path: str) -> dict[str, Capture]:
    try:
        return run.select(taps)
    except NoSuchTap as error:
        every = f"all that the run has: {program()} show {shlex.quote(path)}"
        raise NoSuchTap(error.message, hint=f"{error.hint}; {every}") from error


def _only(captures: Mapping[str, Capture]) -> Capture:
    if len(captures) == 1:
        return next(iter(captures.values()))
    raise SelectionError(
        f"values are shown of one tap at a time, {len(captures)} are selected",
        hint=f"choose one with -t: {listed(captures)}",
    )


def _print_summaries(run: Run, captures: Mapping[str, Capture], wide: bool, as_json: bool) -> None:
    from layertap.cli.taps import capture_json, summary_table

    table, summaries = summary_table(captures)
    if as_json:
        document = {
            "run": str(run.path),
            "samples": run.samples,
            "complete": run.complete,
            "provenance": run.provenance,
            "taps": [capture_json(captures[name], summaries[name]) for name in captures],
        }
        print(json.dumps(document))
        return
    for line in provenance_lines(run):
        print(line)
    print()
    table.show(wide=wide)


def provenance_lines(run: Run) -> list[str]:
    """Where a run comes from, one fact a line."""
    facts = dict(run.provenance)
    runtime = f"{facts.pop('runtime', '?')} {facts.pop('version', None) or ''}".strip()
    verb = "listen" if facts.get("one_way") else "capture"
    if verb == "listen":
        facts.pop("inputs", None)  # nothing was fed
    state = "complete" if run.complete else f"incomplete: go on with layertap {verb} ... --resume"
    told = {"run": str(run.path), "samples": f"{run.samples:,}, {state}", "runtime": runtime}
    told |= {name.replace("_", " "): _fact(fact) for name, fact in facts.items()}
    width = max(map(len, told))
    return [f"{name:{width}}  {fact}" for name, fact in told.items()]


def _fact(fact: Any) -> str:
    """A value of the provenance in one line; of a hash, enough to tell it by."""
    if isinstance(fact, Mapping):
        return ", ".join(
            f"{name} {str(value)[:16] if name == 'sha256' else _fact(value)}"
            for name, value in fact.items()
        )
    if fact is None:
        return "unknown"
    return ("yes" if fact else "no") if isinstance(fact, bool) else str(fact)


def _position(capture: Capture, sample: int) -> int:
    """The row of a sample, of which not every one reaches every tap; below 0 they are counted from
    the last. Raises SelectionError when there is no such row."""
    import numpy as np

    samples = capture.samples
    rows = np.flatnonzero(samples == sample)
    if -len(samples) <= sample < 0:
        return sample + len(samples)
    if not len(rows):
        hint = f"give {samples[0]} to {samples[-1]}" if len(samples) else "it has no rows"
        if len(samples) and samples[-1] - samples[0] >= len(samples):
            hint += "; some of these did not reach it"
        raise SelectionError(f"{capture.tap.name!r} has no row of number {sample}", hint=hint)
    return int(rows[0])


def _row(capture: Capture, sample: int, raw: bool) -> Array:
    """The values of one sample. Raises SelectionError when there is no such row."""
    import numpy as np

    if capture.tap.per == "run":
        return np.asarray(capture.raw if raw else capture.values)
    position = _position(capture, sample)
    one = capture[position : position + 1]
    return np.asarray((one.raw if raw else one.values)[0])


def _print_values(capture: Capture, sample: int, raw: bool, as_json: bool) -> None:
    import numpy as np

    values = _row(capture, sample, raw)
    if capture.tap.per != "run":
        sample = int(capture.samples[_position(capture, sample)])
    if as_json:
        plain = plain_numbers(values)
        document = {
            "name": capture.tap.name,
            "sample": sample,
            "dtype": str(values.dtype),
            "shape": list(values.shape),
            "values": json.loads(_json_numbers(plain)),
        }
        print(json.dumps(document))
        return
    print(f"{capture.tap.name}, sample {sample}, {values.dtype}, shape {values.shape}")
    print(np.array2string(values, precision=6, threshold=SHOWN, edgeitems=4, max_line_width=100))


def _json_numbers(values: Array) -> str:
    """JSON has no infinity, NaN or complex numbers: null, and text."""
    if values.dtype.kind == "c":
        return json.dumps([str(value) for value in values.ravel()])
    text = json.dumps(values.tolist())
    return text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null")


def plain_numbers(values: Array) -> Array:
    """``values`` in a dtype that NumPy itself has: bfloat16 and float8 as float32, int4 as int8."""
    import numpy as np

    from layertap.core.dtypes import is_real

    if values.dtype.isbuiltin == 1:
        return values
    return values.astype(np.float32 if is_real(values.dtype) else np.int8)


def _save(capture: Capture, sample: int | None, raw: bool, path: Path, as_json: bool) -> None:
    import numpy as np

    if path.suffix != ".npy":
        raise StoreError(f"{str(path)!r} is no .npy file", hint="--save values.npy")
    if sample is not None or capture.tap.per == "run":
        values = plain_numbers(_row(capture, sample or 0, raw))
        np.save(path, values)
    else:
        values = _save_rows(capture, raw, path)
    if as_json:
        told = {"saved": str(path), "shape": list(values.shape), "dtype": str(values.dtype)}
        print(json.dumps(told))
        return
    print(f"{path}: {capture.tap.name}, {values.dtype}, shape {values.shape}")


def _save_rows(capture: Capture, raw: bool, path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """All rows, block by block, so that memory stays bounded. Raises StoreError if ragged."""
    import numpy as np

    if not len(capture):
        raise StoreError(f"{capture.tap.name!r} has no rows", hint="the run was interrupted early")
    step = max(1, (64 << 20) // max(1, capture.tap.row_bytes or 1))
    target: Any = None
    for start in range(0, len(capture), step):
        block = capture[start : start + step]
        read = block.raw if raw else block.values
        if isinstance(read, list):
            raise StoreError(
                f"the rows of {capture.tap.name!r} have different shapes",
                hint="save one row with --sample N",
            )
        rows = plain_numbers(np.asarray(read))
        if target is None:
            shape = (len(capture), *rows.shape[1:])
            target = np.lib.format.open_memmap(path, "w+", rows.dtype, shape)
        target[start : start + len(rows)] = rows
    target.flush()
    saved: Array = target
    return saved


__all__ = ["plain_numbers", "provenance_lines", "show"]
