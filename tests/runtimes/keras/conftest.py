"""What the tests of the Keras runtime have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

KERAS_ITSELF = "ignore:__array__ implementation:DeprecationWarning:keras"
"""Keras hands over TensorFlow's tensors in a way that NumPy 2 calls old; layertap must not."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The warnings of Keras's own code are no errors."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings(KERAS_ITSELF))


@pytest.fixture
def fresh_names() -> None:
    """Layers are numbered from one again, and weights are drawn from the same seed."""
    keras = pytest.importorskip("keras")
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
