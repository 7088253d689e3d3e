"""Taps in a run's document."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

import layertap
from layertap.store.zarr import ZarrStore
from layertap.testing.store import make_tap


def test_the_line_of_code_is_kept_and_does_not_keep_a_run_from_being_resumed(
    tmp_path: Path,
) -> None:
    tap = dataclasses.replace(make_tap("block/Relu"), source="net.py:12")
    for moved in (tap, dataclasses.replace(tap, source="net.py:99")):
        store = ZarrStore(tmp_path / "run", [moved], {"runtime": "none"}, resume=True)
        if store.samples:
            store.skip(store.samples, {"x": np.zeros((2, 1))})
        store.write(moved, np.zeros((2, 3), np.float32))
        store.commit(2, {"x": np.zeros((2, 1))})
        store.close(True)
    assert layertap.load(tmp_path / "run")["block/Relu"].tap.source == "net.py:12"
