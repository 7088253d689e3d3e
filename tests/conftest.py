"""Fixtures for all tests."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import testboard
from hypothesis import HealthCheck, settings
from tflm_tree import VARIABLE, Tree, find_tree

# How long an example takes tells of the machine and its neighbours, not of the code.
settings.register_profile(
    "any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# A program that is started in the background ignores Ctrl-C, and so do those that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and inputs beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("real models are kept outside the repository and are not here")
    return SHARED


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> testboard.Board:
    """A board that is a program of this machine; see tests/firmware/testboard.py."""
    return testboard.host_board(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="session")
def emulated_board(tmp_path_factory: pytest.TempPathFactory) -> testboard.Board:
    """The same board on an emulated Cortex-M3."""
    return testboard.emulated_board(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="session")
def tflm_tree() -> Tree:
    """TensorFlow Lite Micro, built; see tests/firmware/tflm_tree.py."""
    found = find_tree()
    if found is None:
        pytest.skip(f"{VARIABLE} names no finished TensorFlow Lite Micro")
    return found
