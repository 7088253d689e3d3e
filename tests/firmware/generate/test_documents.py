"""The C++ on the pages about boards compiles, beside a generated firmware."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from sizes import GROWTH, recorded
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

ROW = re.compile(r"^\| (.*?) \| ([\d,]+) \| ([\d,]+) \|$", re.M)
COSTS = {"TapResolver": "resolver", "all of it": "everything"}
"""How rows of the table of costs begin, and what they are called in the record."""


def test_costs_are_those_of_the_record() -> None:
    sizes = recorded()[1]
    rows = ROW.findall((ROOT / "docs" / "device.md").read_text())
    assert len(rows) == len(COSTS)
    for (about, *numbers), (word, name) in zip(rows, COSTS.items(), strict=True):
        assert word in about
        code, ram = (int(number.replace(",", "")) for number in numbers)
        assert code == pytest.approx(sizes[name].code, rel=GROWTH - 1)
        assert ram == pytest.approx(sizes[name].ram, rel=GROWTH - 1)


@pytest.mark.slow
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
