"""The device files stay within their budgets, and do not grow unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sizes import GROWTH, ROWS, Row, compiler_version, recorded

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_sizes(row: Row, tmp_path: Path) -> None:
    size = row.measure(tmp_path)
    if size is None:
        pytest.skip(f"{row.name} needs LAYERTAP_TFLM_DIR, a tree for Cortex-M")
    assert row.code is None or size.code <= row.code
    assert row.ram is None or size.ram <= row.ram
    compiler, sizes = recorded()
    if compiler != compiler_version():
        return  # Another compiler makes other code: its budget is all that can be held against it.
    assert size.code <= GROWTH * sizes[row.name].code
    assert size.ram <= GROWTH * sizes[row.name].ram
