"""Run every benchmark, or those named, and write benchmarks/RESULTS.md: `make bench`.

``python -m benchmarks user_path torch growth`` runs the part ``torch`` of ``user_path``, and
``growth``. Each module that has ``rows()`` runs in a process of its own. A row is a dict with
``work``, ``contender``, ``ratio`` and ``bar`` (None for what is there for orientation), or as
:mod:`benchmarks.user_path.goals` makes it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.timing import Round, quiet_median

HERE = Path(__file__).parent
PARTS = {"user_path": ("torch", "keras", "tensorflow", "litert", "tflm", "command_line", "peers")}
MODULES = (
    "user_path",
    "growth",
    "import_cost",
    "torch_overhead",
    "keras_overhead",
    "keras_depth",
    "tensorflow_overhead",
    "store_throughput",
)
MODULES += ("arena_optimize", "arena_speed", "wire", "device_throughput")
TABLES = tuple(
    table
    for module in MODULES
    for table in ([f"{module}.{part}" for part in PARTS.get(module, ())] or [module])
)
"""One for each module or part of one, in the order of the results."""
PACKAGES = ("layertap", "numpy", "torch", "tensorflow", "keras", "zarr", "captum")
PACKAGES += ("nnsight", "torchlens", "pyarrow")
LIMIT_SECONDS = 1800

PROCESSES = {"torch_overhead": 2}
"""Modules whose ratios depend on where a process happens to have its memory, and on the hour: each
figure is made of the rounds of that many processes."""


def measure(module: str) -> list[dict[str, Any]]:
    """The rows of one benchmark module; of several processes, with the rounds of all of them, or,
    where a row has none, the median."""
    if module not in PROCESSES:
        return _measure_once(module)
    runs = [_measure_once(module) for _ in range(PROCESSES[module])]
    rows: dict[object, list[dict[str, Any]]] = {}
    for row in (row for run in runs for row in run):
        rows.setdefault((row["work"], row["contender"]), []).append(row)
    return list(map(_pooled, rows.values()))


def _pooled(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rounds: list[Round] = [found for row in rows for found in row.get("rounds", ())]
    median = statistics.median(row["ratio"] for row in rows)
    return {**rows[0], "ratio": quiet_median(rounds) if rounds else median}


def _measure_once(module: str) -> list[dict[str, Any]]:
    """The rows of one benchmark module, run in a fresh process from the repository root."""
    code = (
        f"import json, sys; from benchmarks.{module} import rows; "
        "found = rows(); sys.stderr.flush(); print('\\n' + json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LIMIT_SECONDS,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Markdown rows; a bar or a goal that is missed says so."""
    with_goals = bool(found) and "goal" in found[0]
    lines = [GOALS if with_goals else BARS]
    lines += map(_with_goal if with_goals else _with_bar, found)
    return "\n".join(lines)


GOALS = """| work | contender | ms | ratio | goal | of the goal | |
|---|---|---|---|---|---|---|"""
BARS = """| work | contender | ratio | bar | |
|---|---|---|---|---|"""


def _with_goal(row: dict[str, Any]) -> str:
    share = "" if row["share"] is None else f"{row['share']:.3f}"
    taken = f"{row['seconds'] * 1e3:,.4g} | {row['ratio']:.2f}"
    end = f"{row['goal']} | {share} | {_verdict(row['share'], 1)}"
    return f"| {row['work']} | {row['contender']} | {taken} | {end} |"


def _with_bar(row: dict[str, Any]) -> str:
    shown = "" if row["bar"] is None else f"≤ {row['bar']}"
    end = f"{row['ratio']:.3f} | {shown} | {_verdict(row['ratio'], row['bar'])}"
    return f"| {row['work']} | {row['contender']} | {end} |"


def _verdict(found: float | None, most: float | None) -> str:
    if found is None or most is None:
        return ""
    return "met" if found <= most else "**missed**"


def sections(text: str) -> dict[str, str]:
    """The tables of a results file by the module that measured them."""
    parts = re.split(r"^## ([\w.]+)$", text, flags=re.MULTILINE)[1:]
    rows = re.compile(r"^\|.*$", flags=re.MULTILINE)
    bodies = ("\n".join(rows.findall(body)) for body in parts[1::2])
    return dict(zip(parts[::2], bodies, strict=True))


def _section(name: str, rows: str) -> str:
    """A table, and what is known of it: why a goal is missed, say."""
    notes = HERE / "notes" / f"{name}.md"
    known = f"\n{notes.read_text(encoding='utf-8')}" if notes.exists() else ""
    return f"## {name}\n\n{rows}\n{known}"


def chosen(arguments: Sequence[str]) -> list[str]:
    """The tables that are asked for: modules, each followed by those of its parts that are wanted;
    all without any."""
    parts: dict[str, list[str]] = {}
    for argument in arguments:
        latest = next(reversed(parts), "")
        if argument in PARTS.get(latest, ()):
            parts[latest].append(f"{latest}.{argument}")
        elif argument in MODULES:
            parts[argument] = []
        else:
            raise SystemExit(f"there is no {argument}; there are {' '.join(MODULES)}")
    wanted = [table for module, tables in parts.items() for table in tables or _tables(module)]
    return wanted or list(TABLES)


def _tables(module: str) -> list[str]:
    return [table for table in TABLES if table.split(".")[0] == module]


def main() -> None:
    """Each table is written as soon as it is measured; those not asked for stay as they are."""
    results = HERE / "RESULTS.md"
    found = sections(results.read_text(encoding="utf-8")) if results.exists() else {}
    for module in chosen(sys.argv[1:]):
        start = time.monotonic()
        found[module] = table(measure(module))
        print(f"{module}, {time.monotonic() - start:.0f} s\n\n{found[module]}\n", flush=True)
        kept = (_section(name, found[name]) for name in TABLES if name in found)
        results.write_text(f"{HEADER}\n{_conditions()}\n\n" + "\n".join(kept), encoding="utf-8")


HEADER = """# Measured overhead

Written by `make bench`.

**What people call** (`user_path`) comes first: a run, a capture, the first one, `attach` in a loop,
the command line from start to exit, beside what one would write by hand, and beside a raw `write()`
of the same bytes. Times are medians over interleaved rounds in one process (first captures of
PyTorch and of `.tflite` files: one process each), ratios are to the first contender of the work,
round by round. A goal adds up what other contenders of the work took in the same round; a share of
it above 1 is a goal missed. Nothing is done to the memory of the process.

**Growth**: what a sample and a tap cost, beside the cheapest of the smaller runs.

Elsewhere each figure is the median, over interleaved rounds in one process, of the time of the
contender divided by the time of the same work without it. Those of a prepared pass beside a bare
one (`torch_overhead`, `keras_overhead`, `keras_depth`, `tensorflow_overhead`) are for orientation:
they say where the time goes, and where a proof needs a copy or a look, safety wins. They are
medians over the quietest quarter of the rounds, those of PyTorch of the rounds of two processes, in
which the fastest of several passes in a row counts; the same pass once more shows how far a figure
can be trusted. A bar is what layertap promises; rows without one are for orientation, too.
Those of arena_optimize and some of wire are bytes, not times; those of device_throughput are shares
of the time that a link of 12 Mbit/s takes for the same bytes.
"""


def _conditions() -> str:
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} absent")
    when = datetime.now(UTC).date().isoformat()
    return (
        f"{when}, {os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}, {', '.join(versions)}."
    )


if __name__ == "__main__":
    main()
