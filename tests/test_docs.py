"""Every block of code in the documentation runs, in the order of the page."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from layertap.demo import asset

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.remove(ROOT / "docs" / "store-format.md")  # needs a run to read: tests/store has its test
ONE_BY_ONE = """
import json, sys
for number, code in enumerate(json.load(sys.stdin), 1):
    exec(compile(code, f"<python block {number}>", "exec"), {"__name__": "__main__"})
"""
"""Blocks that follow each other run in one process, each with names of its own: importing a
framework once is enough."""
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    shutil.copy(asset("digits_int8.tflite"), tmp_path / "model.tflite")
    shutil.copy(asset("digits.keras"), tmp_path / "model.keras")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for language, group in itertools.groupby(blocks(page), key=lambda block: block[0]):
        codes = [code for _, code in group]
        if language == "python":
            run([sys.executable, "-c", ONE_BY_ONE], env, tmp_path, json.dumps(codes))
        for line in "".join(codes).splitlines() if language == "console" else ():
            if line.startswith("$ "):
                run(["bash", "-c", line[2:]], env, tmp_path)


def run(command: list[str], env: dict[str, str], folder: Path, given: str = "") -> None:
    done = subprocess.run(
        command, cwd=folder, env=env, input=given, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
