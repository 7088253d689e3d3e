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

import boardstream
import pytest

from layertap.demo import asset, digits

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.remove(ROOT / "docs" / "store-format.md")  # needs a run to read: tests/store has its test
RUNNER = """
import json, re, sys
names = {}
for heading, code in json.load(sys.stdin):
    space = names.setdefault(heading, {"__name__": "__main__"})
    last = code.rstrip().rpartition("\\n")[2]
    error = re.fullmatch(r"# (\\w+Error)(?:: (.*))?", last)
    try:
        exec(compile(code, f"<{heading}>", "exec"), space)
    except Exception as raised:
        if not error or type(raised).__name__ != error[1] or (error[2] or "") not in str(raised):
            raise
    else:
        assert not error, f"no error under {heading!r}: {last}"
"""
"""Runs Python blocks one by one in one process, since importing a framework once is enough. Those
under one heading share their names. One that ends in a comment with an error must raise it."""
BLOCK = re.compile(r"^#+ (.*?)$|^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, heading above it, and code of each block."""
    found, heading = [], ""
    for title, language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        heading = title or heading
        if language:
            found.append((language, heading, code))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    shutil.copy(asset("digits_int8.tflite"), tmp_path / "model.tflite")
    shutil.copy(asset("digits.keras"), tmp_path / "model.keras")
    if "recorded.bin" in page.read_text(encoding="utf-8"):
        model = asset("digits_int8.tflite").read_bytes()
        (tmp_path / "recorded.bin").write_bytes(boardstream.stream(model, digits().image[:20]))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for language, group in itertools.groupby(blocks(page), key=lambda block: block[0]):
        codes = [(heading, code) for _, heading, code in group]
        if language == "python":
            run([sys.executable, "-c", RUNNER], env, tmp_path, json.dumps(codes))
        lines = "".join(code for _, code in codes).splitlines()
        for line in lines if language == "console" else ():
            if line.startswith("$ "):
                run(["bash", "-c", line[2:]], env, tmp_path)


def run(command: list[str], env: dict[str, str], folder: Path, given: str = "") -> None:
    done = subprocess.run(
        command, cwd=folder, env=env, input=given, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
