"""Running the command line in this process, and in one of its own without frameworks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from layertap.cli import main
from layertap.demo import asset

Invoke = Callable[..., Result]

WITHOUT = """
import importlib.machinery, sys
blocked = set({blocked!r})
find = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in blocked else find(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
from layertap.cli import main
try:
    main({args!r})
finally:
    loaded = {{name.partition(".")[0] for name in sys.modules}}
    print("LOADED", *sorted(loaded), file=sys.stderr)
"""


@pytest.fixture
def cli() -> Invoke:
    """``cli("ls", path)``: the result of a command, run in this process."""

    def invoke(*args: object) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return invoke


@pytest.fixture
def cli_json(cli: Invoke) -> Callable[..., Any]:
    """The document that a command prints with ``--json``; it must succeed."""

    def invoke(*args: object) -> Any:
        result = cli(*args, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return invoke


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``start("capture", path)``: a command in the folder ``tmp_path``, in a process and a group of
    its own, which does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "layertap", *args],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def cli_without() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A command in a process of its own, in which ``blocked`` packages are not installed."""

    def run(blocked: list[str], *args: object) -> subprocess.CompletedProcess[str]:
        code = WITHOUT.format(blocked=blocked, args=[str(arg) for arg in args])
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
        )

    return run


@pytest.fixture
def int8_model() -> Path:
    return asset("digits_int8.tflite")


@pytest.fixture
def digits_file() -> Path:
    return asset("digits.npz")
