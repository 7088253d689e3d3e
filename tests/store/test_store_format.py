"""The code in docs/store-format.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from layertap.store.zarr import ZarrStore
from layertap.testing.store import make_tap

PAGE = Path(__file__).parents[2] / "docs" / "store-format.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["xarray", "zarr", "tensorstore"])
def test_the_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], block: str
) -> None:
    tap = make_tap("conv")
    store = ZarrStore(tmp_path / "run.zarr", [tap], {"runtime": "none"})
    store.write(tap, np.full((20, 3), 7, np.float32))
    store.commit(20, {"x": np.zeros((20, 1))})
    store.close(True)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, str(PAGE), "exec"), {})
    assert re.search(r"7\. 7\. 7\.|sample|runtime", capsys.readouterr().out)
