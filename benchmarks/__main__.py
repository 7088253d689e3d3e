"""Run every benchmark, or those named, and write benchmarks/RESULTS.md: `make bench`.

Each module of this folder that has ``rows()`` runs in a process of its own. A row is a dict with
``work``, ``contender``, ``ratio`` and ``bar`` (None for a peer, which is there for orientation).
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.timing import Round, quiet_median

HERE = Path(__file__).parent
MODULES = (
    "import_cost",
    "torch_overhead",
    "keras_overhead",
    "keras_depth",
    "tensorflow_overhead",
    "store_throughput",
)
MODULES += ("arena_optimize", "arena_speed", "wire", "device_throughput")
PACKAGES = ("layertap", "numpy", "torch", "tensorflow", "keras", "zarr", "captum")
PACKAGES += ("nnsight", "torchlens", "pyarrow")
LIMIT_SECONDS = 1800

PROCESSES = {
    "torch_overhead": 7,
    "keras_overhead": 3,
    "keras_depth": 3,
    "tensorflow_overhead": 3,
}
"""Modules whose ratios depend on where a process happens to have its memory, and on the hour: each
figure is made of the rounds of that many processes."""


def measure(module: str) -> list[dict[str, Any]]:
    """The rows of one benchmark module; of several processes, with the rounds of all of them, or,
    where a row has none, the median."""
    runs = [_measure_once(module) for _ in range(PROCESSES.get(module, 1))]
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
    """Markdown rows; a bar that is missed says so."""
    lines = ["| work | contender | ratio | bar | |", "|---|---|---|---|---|"]
    for row in found:
        bar, ratio = row["bar"], float(str(row["ratio"]))
        met = "" if bar is None else "met" if ratio <= float(str(bar)) else "**missed**"
        shown = "" if bar is None else f"≤ {bar}"
        lines.append(f"| {row['work']} | {row['contender']} | {ratio:.3f} | {shown} | {met} |")
    return "\n".join(lines)


def sections(text: str) -> dict[str, str]:
    """The tables of a results file by the module that measured them."""
    parts = re.split(r"^## (\w+)$", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def main() -> None:
    """Each table is written as soon as it is measured; those not asked for stay as they are."""
    results = HERE / "RESULTS.md"
    found = sections(results.read_text(encoding="utf-8")) if results.exists() else {}
    for module in sys.argv[1:] or MODULES:
        found[module] = table(measure(module))
        print(f"{module}\n\n{found[module]}\n", flush=True)
        kept = (f"## {name}\n\n{found[name]}\n" for name in MODULES if name in found)
        results.write_text(f"{HEADER}\n{_conditions()}\n\n" + "\n".join(kept), encoding="utf-8")


HEADER = """# Measured overhead

Written by `make bench`. Each figure is the median, over interleaved rounds in one process, of the
time of the contender divided by the time of the same work without it (the bare forward pass; a raw
`write()` of the same bytes). Those of PyTorch, Keras and TensorFlow are medians over the quietest
quarter of the rounds of several processes. In a round of PyTorch the fastest of several passes in a
row counts; the same pass once more shows how far a figure can be trusted. A bar is what layertap
promises; rows without one are other tools on the same work, for orientation.
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
