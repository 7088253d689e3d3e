"""Compilers and the emulator, for tests that need them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEVICE = ROOT / "src" / "layertap" / "firmware" / "device"
"""The folder of layertap.h and layertap_tflm.h."""
MPS2 = ROOT / "src" / "layertap" / "firmware" / "generate" / "platforms" / "qemu_mps2"
"""Start-up, UART and memory of the emulated board."""

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
CORTEX_M3 = ("-mcpu=cortex-m3", "-mthumb", "-Os", "-ffunction-sections", "-fdata-sections")
REQUIRED = "LAYERTAP_REQUIRE_TOOLS"
"""Set to 1 where a missing tool is a failure rather than a test less."""


def tool(name: str) -> str:
    """The path of a program; skips the test by name where it is not installed."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found


def compiled(
    compiler: str,
    sources: Sequence[Path],
    program: Path,
    *flags: str,
    includes: Sequence[Path] = (),
) -> Path:
    """Compiles C or C++ into ``program``; fails the test with what the compiler said."""
    folders = [f"-I{folder}" for folder in (DEVICE, *includes)]
    command = [tool(compiler), *flags, *folders, *map(str, sources), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode or done.stderr:
        pytest.fail(f"{' '.join(command)}\n{done.stderr}")
    return program


def emulator(kernel: Path, *more: str) -> list[str]:
    """The command that runs a program on an emulated Cortex-M3, its UART on stdin and stdout."""
    machine = ["-M", "mps2-an385", "-display", "none", "-monitor", "none", "-serial", "stdio"]
    return [tool("qemu-system-arm"), *machine, "-kernel", str(kernel), *more]


__all__ = [
    "CORTEX_M3",
    "DEVICE",
    "MPS2",
    "REQUIRED",
    "ROOT",
    "SANITIZERS",
    "WARNINGS",
    "compiled",
    "emulator",
    "tool",
]
