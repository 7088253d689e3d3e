"""Which runtime opens what, and what is told where none does."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from layertap.errors import MissingRuntime, SourceError, UnknownSource
from layertap.runtimes import registry
from layertap.runtimes.registry import BUILTIN, Runtime, find_runtime, runtimes, source_path

THEIRS = Runtime("theirs", "theirs.session", "theirs", ("not_installed_here",), (".theirs",))
NO_RUNTIME = "text"


def broken() -> None:
    raise ImportError


Register = Any


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """``register(names)``: entry points for these names of this module."""

    def register(*names: str) -> None:
        entries = [EntryPoint(n, f"{__name__}:{n}", registry.ENTRY_POINTS) for n in names]
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: entries)
        monkeypatch.setattr(EntryPoint, "load", lambda entry: globals()[entry.name])
        registry._further.cache_clear()

    yield register
    registry._further.cache_clear()


def test_a_runtime_of_another_package_is_not_installed_by_an_extra(register: Register) -> None:
    register("THEIRS")
    row = find_runtime("model.theirs")
    assert row is THEIRS
    with pytest.raises(MissingRuntime, match="needs 'not_installed_here'") as caught:
        raise registry.missing_runtime(row, row.missing())
    assert "pip install" not in caught.value.hint
    assert "the module 'not_installed_here'" in caught.value.hint
    assert BUILTIN[0].install() == "pip install 'layertap[keras]'"


def test_what_is_badly_registered_is_left_out(
    register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    register("THEIRS", "NO_RUNTIME", "gone")
    with caplog.at_level(logging.WARNING):
        assert runtimes() == (*BUILTIN, THEIRS)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "'NO_RUNTIME'" in told[0]
    assert "KeyError: 'gone'" in told[1]
    assert find_runtime("model.tflite").name == "litert"


@pytest.mark.timeout(20)
def test_a_pipe_is_no_model_whatever_it_is_called(tmp_path: Path) -> None:
    for suffix in (".tflite", ".keras", ".h5", ".pb", ".pt", ".txt"):
        pipe = tmp_path / f"pipe{suffix}"
        os.mkfifo(pipe)
        for name in (None, "litert"):
            with pytest.raises(SourceError, match="is a pipe or a device"):
                find_runtime(pipe, name)


def test_files_folders_and_objects(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    assert find_runtime(tmp_path).name == "tensorflow"
    assert find_runtime(f"{tmp_path}#serving").name == "tensorflow"
    assert find_runtime("MODEL.TFLITE").name == "litert"
    assert find_runtime("x.unknown", "tflm").name == "tflm"
    assert source_path("folder#part") == Path("folder")
    for source, what in (
        ("x.unknown", "no runtime opens 'x.unknown'"),
        (tmp_path.parent, "no runtime opens the folder"),
        (3, "no runtime opens a builtins.int"),
        ("a\0b.unknown", "no runtime opens"),
    ):
        with pytest.raises(UnknownSource, match=what) as caught:
            find_runtime(source)
        assert caught.value.hint
    with pytest.raises(UnknownSource, match="no runtime 'litter'"):
        find_runtime("x.tflite", "litter")


def test_what_layertap_opens_itself_is_found_without_a_look_at_the_installed_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry._further.cache_clear()
    monkeypatch.setattr("importlib.metadata.entry_points", None)
    assert find_runtime("model.tflite").name == "litert"
    assert find_runtime("model.tflite", "tflm").name == "tflm"
