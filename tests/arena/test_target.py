from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from layertap.arena import target as module
from layertap.arena.kernels import PREPARE
from layertap.arena.target import load_target, names
from layertap.errors import SourceError


def test_the_host_is_the_installed_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed_version", lambda name: "0.dev20261023182759")
    found = load_target()
    assert (found.name, found.version, found.guess) == ("host", "0.dev20261023182759", "")
    assert found.recording
    assert found.compression


def test_without_a_wheel_the_newest_table_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "installed_version", absent)
    assert load_target().commit == "8f6596d"


@pytest.mark.parametrize("name", ["cortex-m", "ilp32"])
def test_chips_take_the_newest_table_that_has_them(name: str) -> None:
    found = load_target(name)
    assert found.commit.startswith("90b983c")
    assert found.pointer == 4
    assert not found.recording
    assert load_target(name, recording=True).recording


@pytest.mark.parametrize("version", ["90b983c", "90b983c2b3f1", "8f6596d", "8f6596d0123456789ab"])
def test_a_version_is_a_commit_too(version: str) -> None:
    """However many of its digits the user or the table has."""
    found = load_target("host", version)
    assert (found.commit[:7], found.guess) == (version[:7], "")


@pytest.mark.parametrize(
    ("version", "commit"),
    [("0.dev20261101000000", "8f6596d"), ("0.dev20260801", "90b983c"), ("abcdef0", "8f6596d")],
)
def test_an_unknown_version_is_said_to_be_a_guess(version: str, commit: str) -> None:
    found = load_target("host", version)
    assert found.commit.startswith(commit)
    assert version in found.guess
    assert "90b983c, 8f6596d 0.dev20261023182759" in found.guess


def test_the_nearest_table_is_so_by_days(monkeypatch: pytest.MonkeyPatch) -> None:
    (newest,) = (table for table in module._tables() if table["commit"].startswith("8f6596d"))
    old = {**newest, "commit": "aaaaaaa", "date": "2025-12-20", "wheels": []}
    new = {**newest, "commit": "bbbbbbb", "date": "2026-02-15", "wheels": []}
    monkeypatch.setattr(module, "_tables", lambda: (old, new))
    for version, commit in [
        ("0.dev20260102", "aaaaaaa"),
        ("0.dev20260131", "bbbbbbb"),
        ("0.dev20261301", "bbbbbbb"),
    ]:
        assert load_target("host", version).commit == commit


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SourceError, match=r"no target 'avr' \(known: .*cortex-m"):
        load_target("avr")
    with pytest.raises(SourceError, match="no kernels 'fast'"):
        load_target(kernels="fast")


def test_sizes_are_there_for_every_kernel() -> None:
    """A size that belongs to no operator would be a typing error, and so would a missing one."""
    tables = [load_target("host"), *(load_target(name, "90b983c") for name in names())]
    assert len(tables) == 4
    for table in tables:
        assert {name.partition(".")[0] for name in table.op_data} <= set(PREPARE)
        assert set(table.params) <= set(PREPARE)
        assert set(table.structs) == set(tables[1].structs) | (
            {"CompressionTensorData", "LookupTableData"} if table.compression else set()
        )
