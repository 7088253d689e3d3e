"""A tree of TensorFlow Lite Micro to build generated firmware with."""

from __future__ import annotations

import pytest
from tflm_tree import VARIABLE, Tree, find_tree


@pytest.fixture(scope="session")
def tree() -> Tree:
    found = find_tree()
    if found is None:
        pytest.skip(f"{VARIABLE} names no TensorFlow Lite Micro")
    return found
