"""What of the generated files compiles without TensorFlow Lite Micro, and what must not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from toolchain import WARNINGS, tool

from layertap.demo import asset
from layertap.onchip import generate_firmware
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.relayout import with_layout

pytestmark = pytest.mark.slow

COMPILERS = ("g++", "clang++", "arm-none-eabi-g++")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "firmware"
    generate_firmware(asset("digits_int8.tflite"), folder, "generic", taps="op:CONV_2D")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def check(folder: Path, source: str, compiler: str = "g++", standard: str = "c++17") -> str:
    """What the compiler says of the file."""
    flags = [*WARNINGS, f"-std={standard}", "-fno-exceptions", "-fno-rtti", "-fsyntax-only"]
    command = [tool(compiler), *flags, "-x", "c++", source]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    return done.stderr


def renumber(folder: Path, version: int) -> None:
    path = folder / "layertap.h"
    text = path.read_text()
    changed = text.replace(
        "#define LAYERTAP_DEVICE_VERSION 1", f"#define LAYERTAP_DEVICE_VERSION {version}"
    )
    assert changed != text
    path.write_text(changed)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("standard", ["c++17", "c++20"])
def test_model_and_taps(folder: Path, compiler: str, standard: str) -> None:
    (folder / "use.cpp").write_text(
        '#include "taps.h"\nstatic_assert(model::tap_pool == 14, "");\n'
    )
    for source in ("model.cpp", "use.cpp"):
        assert check(folder, source, compiler, standard) == ""


NAMES = ("*/ #error", "tail\\", "??/", "a\nb", "int", "PI", "ü", "", "x" * 300, "class@again@")


def test_names_of_every_kind(tmp_path: Path) -> None:
    tensors = [TensorSpec(name, (1, 4)) for name in NAMES]
    steps = [OperatorSpec("RELU", [i], [i + 1]) for i in range(len(NAMES) - 1)]
    source = tmp_path / 'a "b" ??= \\.tflite'
    source.write_bytes(write_tflite(SubgraphSpec(tensors, [0], [len(NAMES) - 1], steps)))
    generate_firmware(source, tmp_path / "fw", "generic", taps="*")
    (tmp_path / "fw" / "use.cpp").write_text('#include "taps.h"\n')
    for source_file in ("model.cpp", "use.cpp"):
        assert check(tmp_path / "fw", source_file) == ""


def test_the_model_lies_in_read_only_memory_and_is_aligned(made: Path, tmp_path: Path) -> None:
    compiler, objdump = tool("arm-none-eabi-g++"), tool("arm-none-eabi-objdump")
    built = tmp_path / "model.o"
    subprocess.run(
        [compiler, "-std=c++17", "-Os", "-c", "model.cpp", "-o", str(built)],
        cwd=made, check=True, timeout=60,
    )  # fmt: skip
    headers = subprocess.run(
        [objdump, "-h", str(built)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    rows = [line.split() for line in headers.splitlines() if " .rodata" in line]
    size = asset("digits_int8.tflite").stat().st_size
    assert [int(row[2], 16) for row in rows] == [size]
    assert rows[0][6] == "2**4"


@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize("source", ["model.cpp", "taps.h"])
def test_files_of_another_version_do_not_compile(folder: Path, version: int, source: str) -> None:
    renumber(folder, version)
    said = check(folder, source)
    assert "error: #error" in said
    assert "regenerate the folder with layertap firmware" in said


def test_a_header_of_before_there_were_versions(folder: Path) -> None:
    path = folder / "layertap.h"
    path.write_text(path.read_text().replace("#define LAYERTAP_DEVICE_VERSION 1", ""))
    assert "regenerate the folder with layertap firmware" in check(folder, "model.cpp")


def test_taps_of_another_model_do_not_compile(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    data = bytearray(asset("digits_int8.tflite").read_bytes())
    generate_firmware(bytes(data + bytes(16)), other, "generic")
    shutil.copy(other / "taps.h", folder)
    assert "taps.h belongs to another model than model.h" in check(folder, "taps.h")


def test_an_older_standard_is_said(made: Path) -> None:
    """Arduino's core for mbed boards compiles as C++14."""
    assert "needs C++17: compile with -std=gnu++17" in check(
        made, "layertap_tflm.h", standard="gnu++14"
    )


def test_both_headers_are_of_one_version(folder: Path) -> None:
    """layertap_tflm.h says so first, before the compiler looks for TensorFlow Lite Micro."""
    renumber(folder, 2)
    text = (folder / "layertap_tflm.h").read_text()
    kept = [line for line in text.splitlines() if '#include "tensorflow' not in line]
    (folder / "layertap_tflm.h").write_text("\n".join(kept))
    assert "are of different versions" in check(folder, "layertap_tflm.h")


def test_a_layout_for_reference_kernels_does_not_compile_with_others(tmp_path: Path) -> None:
    tensors = [TensorSpec("x", (1, 16)), TensorSpec("y", (1, 16))]
    data = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("ADD", [0, 0], [1])]))
    generate_firmware(with_layout(data, [0, 0]), tmp_path, "generic")
    assert check(tmp_path, "model.cpp") == ""
    (tmp_path / "other.cpp").write_text('#define CMSIS_NN\n#include "model.h"\n')
    assert "right for the reference kernels only" in check(tmp_path, "other.cpp")
