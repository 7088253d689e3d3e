"""The C++ on the pages about boards compiles, beside a generated firmware."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tflm_tree import Tree
from toolchain import ROOT, WARNINGS, tool

from layertap.demo import asset
from layertap.onchip import generate_firmware

PAGES = ("device.md", "device-troubles.md")
BLOCKS = [
    (page, number, code)
    for page in PAGES
    for number, code in enumerate(
        re.findall(r"^```cpp\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.S | re.M)
    )
]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("page", "number", "code"), BLOCKS, ids=lambda part: str(part)[:12])
def test_compiles(page: str, number: int, code: str, tree: Tree, tmp_path: Path) -> None:
    generate_firmware(asset("digits_int8.tflite"), tmp_path / "fw", "generic")
    source = tmp_path / "fw" / f"block{number}.cpp"
    source.write_text(code)
    flags = [*tree.flags(), *WARNINGS, "-fsyntax-only"]
    done = subprocess.run(
        [tool(tree.compiler), *flags, str(source)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
