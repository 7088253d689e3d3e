"""The store in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from layertap.core.captures import Run
from layertap.core.graph import TapPoint
from layertap.core.protocols import Json, Sink
from layertap.errors import StoreError
from layertap.store.memory import MemoryStore
from layertap.testing.store import StoreSuite, make_tap


class TestMemoryStore(StoreSuite):
    def make_store(
        self, folder: Path, taps: Sequence[TapPoint], provenance: Mapping[str, Json]
    ) -> Sink:
        return MemoryStore(taps, provenance)

    def load(self, folder: Path, store: Sink) -> Run:
        assert isinstance(store, MemoryStore)
        return store.run()


def test_there_is_nothing_to_skip() -> None:
    with pytest.raises(StoreError, match="in memory"):
        MemoryStore([make_tap("t")], {}).skip(1, {})


def test_a_tap_without_rows_has_its_declared_shape_and_dtype() -> None:
    tap = TapPoint("t", "activation", "ADD", "int8", (None, 3, None), 0)
    raw = MemoryStore([tap], {}).run()["t"].raw
    assert (raw.dtype, raw.shape) == (np.int8, (0, 3, 0))
