"""A TensorFlow Lite Micro is found however its folder is laid out."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from tflm_tree import CORTEX_M, HOST, MARKERS, VARIABLE, find_tree, tree_in

ARM, RISCV = 40, 243
THIS = {"x86_64": 62, "aarch64": 183}.get(platform.machine())


def archive(*machines: int) -> bytes:
    """A static library with an object file per processor, and a member that is none."""
    parts = [b"!<arch>\n"]
    for data in (b"odd", *(_elf(machine) for machine in machines)):
        parts += [b"name/".ljust(48), str(len(data)).encode().ljust(10), b"`\n", data]
        parts += [b"\n"] * (len(data) % 2)
    return b"".join(parts)


def _elf(machine: int) -> bytes:
    return b"\x7fELF".ljust(18, b"\0") + machine.to_bytes(2, "little") + bytes(21)


def made(folder: Path, *machines: int, library: str = "gen/lib/libtensorflow-microlite.a") -> Path:
    """A tree that keeps each header in a place of its own."""
    for number, marker in enumerate(MARKERS):
        path = folder / ("third_party" if number else "") / str(number) / marker
        path.parent.mkdir(parents=True)
        path.touch()
    path = folder / library
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive(*machines))
    return folder


def test_for_cortex_m(tmp_path: Path) -> None:
    tree = tree_in(made(tmp_path, ARM, ARM))
    assert (tree.machine, tree.compiler) == (CORTEX_M, "arm-none-eabi-g++")
    assert all((tree.includes[number] / marker).exists() for number, marker in enumerate(MARKERS))
    assert tree.command(tmp_path / "fw")[0].endswith("qemu-system-arm")


@pytest.mark.skipif(THIS is None, reason="a processor that the tests do not know")
def test_for_this_machine(tmp_path: Path) -> None:
    assert THIS is not None
    tree = tree_in(made(tmp_path, THIS, library="libtflm.a"))
    assert (tree.machine, tree.compiler) == (HOST, "g++")
    assert tree.port(Path("/a b/fw")) == "exec:'/a b/fw'"


def test_headers_that_lie_twice_are_taken_from_the_top(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c" / "0" / MARKERS[0]
    deep.parent.mkdir(parents=True)
    deep.touch()
    assert tree_in(made(tmp_path, ARM)).includes[0] == tmp_path / "0"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    folder = made(tmp_path, ARM)
    (folder / "third_party" / "1" / MARKERS[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"no flatbuffers/flatbuffers\.h below it"):
        tree_in(folder)


def test_one_library_only(tmp_path: Path) -> None:
    folder = made(tmp_path, ARM)
    (folder / "libtflm.a").write_bytes(archive(ARM))
    with pytest.raises(FileNotFoundError, match=r"libtensorflow-microlite\.a, .*libtflm\.a"):
        tree_in(folder)


@pytest.mark.parametrize("machines", [(RISCV,), (ARM, RISCV), ()])
def test_other_processors_are_refused(tmp_path: Path, machines: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="neither for Cortex-M nor for this machine"):
        tree_in(made(tmp_path, *machines))


def test_the_environment_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert find_tree() is None
    monkeypatch.setenv(VARIABLE, str(made(tmp_path, ARM)))
    found = find_tree()
    assert found is not None
    assert found.folder == tmp_path
