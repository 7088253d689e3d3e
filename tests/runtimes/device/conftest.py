"""What the tests of boards have in common."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import boardmodel
import pytest
import testboard

import layertap

Opener = Callable[..., layertap.Model]


@pytest.fixture
def on_board(board: testboard.Board) -> Iterator[Opener]:
    """Opens a model on a test board of its own: ``on_board(data, Orders(...), **options)``."""
    with ExitStack() as opened:

        def open_model(
            data: bytes = boardmodel.MODEL,
            orders: testboard.Orders | None = None,
            **options: Any,
        ) -> layertap.Model:
            port = "exec:" + shlex.join(board.command(data, orders))
            options = {"port": port, "timeout": 30, **options}
            return opened.enter_context(layertap.open(data, "device", **options))

        yield open_model
