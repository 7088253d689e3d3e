"""Every block of code in the documentation runs, in the order of the page."""

from __future__ import annotations

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
    for language, code in blocks(page):
        commands = (
            [[sys.executable, "-c", code]]
            if language == "python"
            else [["bash", "-c", line[2:]] for line in code.splitlines() if line.startswith("$ ")]
        )
        for command in commands:
            done = subprocess.run(
                command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
