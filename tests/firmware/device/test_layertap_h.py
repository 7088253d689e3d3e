"""layertap.h: compilers, golden vectors, streams of all kinds, what it does not need."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from sizes import object_file
from toolchain import CORTEX_M3, DEVICE, ROOT, SANITIZERS, WARNINGS, compiled, tool

from layertap.firmware.wire.assembly import Assembly
from layertap.firmware.wire.decoder import Decoder

HERE = Path(__file__).parent
VECTORS = ROOT / "docs" / "wire-v1.txt"
BARE = ("-fno-exceptions", "-fno-rtti")
pytestmark = pytest.mark.slow
POSIX = ("-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O1", "-g", *WARNINGS, *SANITIZERS)


def flags_of(standard: str) -> tuple[str, ...]:
    """As C, or the same file as C++."""
    language = ("-x", "c++", *BARE) if "++" in standard else ("-x", "c")
    return (*language, f"-std={standard}", *WARNINGS, "-Wshadow", "-Wconversion", "-Wundef")


@pytest.mark.parametrize("standard", ["c99", "c11", "c17", "c++17", "c++20"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compiles_without_a_warning_and_works(compiler: str, standard: str, tmp_path: Path) -> None:
    """Two files of one program include it."""
    name = compiler.replace("gcc", "g++").replace("clang", "clang++")
    name = name if "++" in standard else compiler
    parts = []
    for function in ("first", "second"):
        part = tmp_path / f"{function}.o"
        flags = (*flags_of(standard), "-O1", "-c", f"-DEVERYTHING={function}")
        parts.append(compiled(name, [HERE / "everything.c"], part, *flags))
    main = compiled(
        name, [HERE / "everything_twice.c"], tmp_path / "main.o", *flags_of(standard), "-c"
    )
    program = compiled(name, [*parts, main], tmp_path / "program")
    assert subprocess.run([program], timeout=10).returncode == 5


@pytest.mark.parametrize("standard", ["c99", "c11", "c++17", "c++20"])
def test_compiles_for_a_cortex_m3(standard: str, tmp_path: Path) -> None:
    compiler = "arm-none-eabi-g++" if "++" in standard else "arm-none-eabi-gcc"
    flags = (*CORTEX_M3, *flags_of(standard), "-c", "-DEVERYTHING=all")
    compiled(compiler, [HERE / "everything.c"], tmp_path / "all.o", *flags)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("-U__BYTE_ORDER__", "-D__BYTE_ORDER__=4321"), "needs a little-endian processor"),
        (("-DLAYERTAP_PIECE=0",), "LAYERTAP_PIECE must be from 1 to 65000"),
        (("-DLAYERTAP_PIECE=65001",), "LAYERTAP_PIECE must be from 1 to 65000"),
        (("-DLAYERTAP_GATHER=256",), "LAYERTAP_GATHER must be from 1 to 255"),
    ],
)
def test_what_cannot_work_does_not_compile(flags: tuple[str, ...], sentence: str) -> None:
    command = [tool("gcc"), "-fsyntax-only", *flags, "-x", "c", str(DEVICE / "layertap.h")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode
    assert "error: #error" in done.stderr
    assert sentence in done.stderr


@pytest.mark.parametrize(
    ("piece", "gather", "tensors"), [(4096, 64, 42), (4096, 1, 42), (16, 9, 5)]
)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_golden_vectors(
    compiler: str, piece: int, gather: int, tensors: int, tmp_path: Path
) -> None:
    flags = (*POSIX, f"-DLAYERTAP_PIECE={piece}", f"-DLAYERTAP_GATHER={gather}")
    program = compiled(compiler, [HERE / "vectors.c"], tmp_path / "vectors", *flags)
    done = subprocess.run([program, VECTORS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = VECTORS.read_text().splitlines()
    held = [line for line in lines if line.startswith("tensor ") and f"piece={piece} " in line]
    counted = dict(line.split() for line in done.stdout.splitlines())
    kinds = [line.split()[0] for line in lines if line[:1].isalpha() and "case=" in line]
    expected = {kind: str(kinds.count(kind)) for kind in kinds} | {"tensor": str(len(held))}
    assert counted == expected
    assert len(held) >= tensors


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_receiver_survives_any_stream(compiler: str, tmp_path: Path) -> None:
    frames = re.findall(r"^= ([0-9a-f]+)$", VECTORS.read_text(), re.MULTILINE)
    seeds = tmp_path / "frames"
    seeds.write_bytes(b"".join(map(bytes.fromhex, frames)))
    program = compiled(compiler, [HERE / "fuzz.c"], tmp_path / "fuzz", *POSIX)
    for seed in (1, 2):
        command = [program, seeds, "100000", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


def test_locks_crc_units_and_tensors_that_change(tmp_path: Path) -> None:
    """Frames are whole under the lock; what changed on its way is damage, never another value."""
    program = compiled("gcc", [HERE / "hooks.c"], tmp_path / "hooks", *POSIX)
    done = subprocess.run([program], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    events = Decoder().feed(done.stdout)
    assembly = Assembly()
    found = [ended for event in events if (ended := assembly.take(event)) is not None]
    assert [(inference.number, inference.whole) for inference in found] == [
        (0, True),
        (1, False),
        (2, True),
    ]
    assert [set(found[i].tensors[0, 0][0].array) for i in (0, 2)] == [{7}, {0}]


def symbols(file: Path, *flags: str) -> list[str]:
    command = [tool("arm-none-eabi-nm"), "--format=just-symbols", *flags, str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.split()


def test_sending_needs_no_library_and_no_receiver(tmp_path: Path) -> None:
    """No heap, no stdio, nothing but itself; the way back is not there unless it is used."""
    found = object_file(HERE / "size_encoder.c", tmp_path, "-std=c99")
    assert symbols(found, "--undefined-only") == []
    functions = symbols(found, "--defined-only")
    assert "layertap_crc32" in functions
    assert not [name for name in functions if re.search("receive|parse|take|reduce", name)]


def test_receiving_needs_no_more_than_memory(tmp_path: Path) -> None:
    found = object_file(HERE / "size_receiver.c", tmp_path, "-std=c99")
    assert set(symbols(found, "--undefined-only")) <= {"memcpy", "memset"}
    assert not [name for name in symbols(found) if "send" in name]


def test_nothing_static_changes(tmp_path: Path) -> None:
    """Whatever lies in .data or .bss is what the program itself asked for."""
    found = object_file(HERE / "size_encoder.c", tmp_path, "-std=c99")
    kinds = subprocess.run(
        [tool("arm-none-eabi-nm"), str(found)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    changing = re.findall(r" [bBdDC] (\S+)", kinds.stdout)
    assert changing == ["encoder"]
