"""What the tests of all runtimes have in common."""

from __future__ import annotations

import pytest

from layertap.testing.runtime import RuntimeSuite


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A conformance suite runs whole frameworks over and over: not a unit test."""
    for item in items:
        if issubclass(getattr(item, "cls", None) or object, RuntimeSuite):
            item.add_marker(pytest.mark.slow)
