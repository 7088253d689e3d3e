"""A model that only says what it takes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from layertap.core.feeds import InputSpec
from layertap.core.graph import Graph, TapPoint
from layertap.core.protocols import Capabilities

Read = Callable[..., Any]


@pytest.fixture
def read() -> Read:
    """``read(specs, files=[...], ...)``: the inputs for a model with these inputs."""
    from layertap.cli.inputs import Given, read_inputs

    def call(specs: list[InputSpec], *, runtime: str = "litert", **given: Any) -> Any:
        session: Any = SimpleNamespace(
            inputs=specs,
            graph=Graph(
                TapPoint(spec.name, "input", "", spec.dtype or "float32", spec.shape, i)
                for i, spec in enumerate(specs)
            ),
            capabilities=Capabilities(),
            provenance={"runtime": runtime},
        )
        return read_inputs(Given(**given), session)

    return call
