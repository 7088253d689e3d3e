"""``layertap doctor``: what is installed, what is missing, and whether it works."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

import click

import layertap
from layertap.cli.options import json_option
from layertap.core.units import format_bytes
from layertap.errors import LayertapError
from layertap.runtimes.registry import Runtime

PATIENCE = 60
"""Seconds that a runtime may take to run the demo's model."""

BASE = ("numpy", "ml_dtypes", "zarr", "numcodecs", "flatbuffers", "PIL", "click", "rich")

TOOLS = ("arm-none-eabi-g++", "qemu-system-arm", "arduino-cli", "idf.py", "west", "g++")
"""What builds firmware, or runs it without a board; told where it is found."""

TRIAL = """
import sys, time
import numpy as np
import layertap
from layertap.demo import asset, digits
start = time.perf_counter()
with layertap.open(asset("digits_int8.tflite"), sys.argv[1]) as model:
    run = model.capture(digits().image[:1])
    values = run["probabilities"].values
assert values.shape == (1, 10) and abs(float(values.sum()) - 1) < 0.1, values
print(f"runs the demo's model, {time.perf_counter() - start:.1f} s from the start")
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: ``state`` is ``ok``, ``missing`` or ``fails``."""

    about: str
    name: str
    state: str
    detail: str


@click.command(short_help="what is installed, what is missing, and whether it works")
@json_option
def doctor(as_json: bool) -> None:
    """Look at the installation: versions, what is missing and the line that installs it, and
    whether the runtimes and the store work, by using them on the demo's model.

    Exit status 0 when layertap itself is healthy; missing runtimes are no failure.
    """
    findings = [*_machine(), *_base(), _store()]
    if not as_json:
        _print(findings)
    runtimes = [*(_runtime(row) for row in _rows()), *_ports(), *_tools()]
    if as_json:
        print(json.dumps({"findings": [asdict(one) for one in [*findings, *runtimes]]}))
    else:
        _print(runtimes)
    sick = [one for one in findings if one.state != "ok"]
    if sick:
        raise LayertapError(
            f"{', '.join(one.name for one in sick)} do not work"
            if len(sick) > 1
            else f"{sick[0].name} does not work: {sick[0].detail}",
            hint="pip install --force-reinstall layertap",
        )


def _print(findings: list[Finding]) -> None:
    colours = {"ok": "green", "missing": "yellow", "fails": "red"}
    for one in findings:
        state = click.style(f"{one.state:8}", fg=colours[one.state])
        click.echo(f"{state}{one.name:17} {one.detail}")


def _machine() -> list[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = shutil.disk_usage(Path.cwd()).free
    sizes = f"{os.cpu_count()} processors, {format_bytes(memory)} of memory"
    return [
        Finding("machine", "python", "ok", f"{platform.python_version()} at {sys.executable}"),
        Finding("machine", "system", "ok", f"{platform.platform()}, {sizes}"),
        Finding("machine", "disk", "ok", f"{format_bytes(free)} free in this folder"),
        Finding("package", "layertap", "ok", layertap.__version__),
    ]


def _distribution(package: str) -> str:
    """The version of the distribution that installs ``package``; empty when it is missing."""
    for name in packages_distributions().get(package, [package]):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def _base() -> list[Finding]:
    found = []
    for package in BASE:
        installed = _distribution(package) if find_spec(package) else ""
        detail = installed or "pip install --force-reinstall layertap"
        found.append(Finding("package", package, "ok" if installed else "missing", detail))
    return found


def _store() -> Finding:
    """Write a run and read it back."""
    import numpy as np

    from layertap.core.graph import TapPoint

    wanted = np.arange(6, dtype=np.float32).reshape(2, 3)
    tap = TapPoint("tap", "output", "TRIAL", "float32", (None, 3), 0)
    with tempfile.TemporaryDirectory() as folder:
        try:
            from layertap.store.zarr import ZarrStore

            path = Path(folder) / "trial.zarr"
            store = ZarrStore(path, [tap], {})
            store.write(tap, wanted)
            store.commit(2, {"x": wanted})
            store.close(True)
            read = layertap.load(path)["tap"].values
        except (LayertapError, ImportError) as error:
            return Finding("store", "store", "fails", str(error))
    same = np.array_equal(read, wanted)
    detail = "a run was written and read back" if same else "a run reads back with other values"
    return Finding("store", "store", "ok" if same else "fails", detail)


def _rows() -> list[Runtime]:
    from layertap.runtimes.registry import runtimes

    return list(runtimes())


def _runtime(row: Runtime) -> Finding:
    missing = row.missing()
    if missing:
        return Finding("runtime", row.name, "missing", row.install(missing))
    detail = _distribution(row.packages[0])
    if ".tflite" not in row.suffixes:
        return Finding("runtime", row.name, "ok", f"{detail}, installed")
    works, told = _try(row.name)
    return Finding("runtime", row.name, "ok" if works else "fails", f"{detail}, {told}")


def _ports() -> list[Finding]:
    """The serial ports of this machine, and whether they may be opened."""
    try:
        from serial.tools.list_ports import comports
    except ModuleNotFoundError:
        return []
    found = []
    for port in sorted(comports()):
        allowed = os.access(port.device, os.R_OK | os.W_OK)
        detail = port.description if allowed else f"you may not open it: {_group(port.device)}"
        found.append(Finding("port", port.device, "ok" if allowed else "fails", detail))
    return found


def _group(device: str) -> str:
    try:
        return f"be in the group {Path(device).group()}"
    except (KeyError, OSError):
        return "see its permissions"


def _tools() -> list[Finding]:
    found = []
    for name in TOOLS:
        path = shutil.which(name)
        if path is not None:
            found.append(Finding("tool", name, "ok", _version(path) or path))
    return found


def _version(path: str) -> str:
    """The first line of what ``--version`` says."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter(done.stdout.splitlines()), "").strip()


def _try(name: str) -> tuple[bool, str]:
    """Run the demo's model in a process of its own; whether it worked, and what to tell."""
    command = [sys.executable, "-c", TRIAL, name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return False, f"no answer in {PATIENCE} s"
    if done.returncode == 0:
        return True, done.stdout.strip().splitlines()[-1]
    lines = done.stderr.strip().splitlines()
    return False, lines[-1] if lines else f"its process ended with status {done.returncode}"


__all__ = ["doctor"]
