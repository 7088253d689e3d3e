"""A finished TensorFlow Lite Micro, for tests that need one.

The environment variable LAYERTAP_TFLM_DIR names a folder with its headers (its own, those of
flatbuffers, gemmlowp and ruy) and its static library, wherever they lie below it. It is built for
this machine, or for Cortex-M3: then the programs run in an emulator. Without it such tests are
skipped.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from toolchain import CORTEX_M3, DEVICE, MPS2, WARNINGS, emulator, tool

VARIABLE = "LAYERTAP_TFLM_DIR"
MARKERS = (
    "tensorflow/lite/micro/micro_interpreter.h",
    "flatbuffers/flatbuffers.h",
    "fixedpoint/fixedpoint.h",
    "ruy/profiler/instrumentation.h",
)
"""Headers by which the folders to search are found."""
LIBRARIES = ("lib*tflm*.a", "libtensorflow-microlite.a")
HOST, CORTEX_M = "host", "cortex-m"
OUTLINE = Path(__file__).parent / "device" / "outline"
"""Headers for compilers only, where there is no tree."""
_ARM = 40
_MACHINES = {"x86_64": 62, "AMD64": 62, "aarch64": 183, "arm64": 183}
"""e_machine of an ELF file by what Python calls the processor."""
CPP_FLAGS = (
    "-std=c++17",
    "-fno-rtti",
    "-fno-exceptions",
    "-fno-threadsafe-statics",
    "-ffunction-sections",
    "-fdata-sections",
    "-DTF_LITE_STATIC_MEMORY",
)


@dataclass(frozen=True)
class Tree:
    """``machine`` is HOST or CORTEX_M; ``includes`` are folders, ``library`` the archive."""

    folder: Path
    includes: tuple[Path, ...]
    library: Path
    machine: str

    @property
    def compiler(self) -> str:
        return "g++" if self.machine == HOST else "arm-none-eabi-g++"

    def flags(self, standard: str = "c++17") -> list[str]:
        """What every file that includes its headers is compiled with; no warnings from those."""
        headers = [part for folder in self.includes for part in ("-isystem", str(folder))]
        chip = CORTEX_M3 if self.machine == CORTEX_M else ("-O1", "-g")
        return [*CPP_FLAGS, f"-std={standard}", *chip, *headers, f"-I{DEVICE}"]

    def program(self, sources: Sequence[Path], to: Path, *flags: str) -> Path:
        """Compiles C++ and links it; for Cortex-M with the start-up code of the emulated board."""
        options = [*self.flags(), *WARNINGS, f"-I{MPS2}", *flags]
        objects = [_object(self.compiler, source, to, options) for source in sources]
        link = ["-Wl,--gc-sections"]
        if self.machine == CORTEX_M:
            startup = [*CORTEX_M3, f"-I{MPS2}"]
            objects += [
                _object("arm-none-eabi-gcc", MPS2 / name, to, startup)
                for name in ("startup.c", "uart.c")
            ]
            link += [*CORTEX_M3[:2], "-nostartfiles", "-T", str(MPS2 / "memory.ld")]
        _run([tool(self.compiler), *flags, *map(str, objects), str(self.library), *link, "-o", to])
        return to

    def command(self, program: Path) -> list[str]:
        """The command line that runs it, its link to the host on stdin and stdout."""
        return [str(program)] if self.machine == HOST else emulator(program)

    def port(self, program: Path) -> str:
        """The same as a port of the runtime device."""
        return f"exec:{shlex.join(self.command(program))}"


def find_tree() -> Tree | None:
    """The tree that the environment names; None without one. Raises FileNotFoundError when the
    folder lacks something, ValueError when its library is built for another processor."""
    folder = os.environ.get(VARIABLE)
    return None if not folder else tree_in(Path(folder))


def tree_in(folder: Path) -> Tree:
    """See :func:`find_tree`."""
    includes = dict.fromkeys(_folder_of(folder, marker) for marker in MARKERS)
    libraries = sorted({path for name in LIBRARIES for path in folder.rglob(name)})
    if len(libraries) != 1:
        found = ", ".join(map(str, libraries)) or "none"
        raise FileNotFoundError(f"{folder}: one library {LIBRARIES} is wanted, found {found}")
    return Tree(folder, tuple(includes), libraries[0], _machine(libraries[0]))


def _folder_of(folder: Path, header: str) -> Path:
    """The folder to search for ``header``: the one nearest to the top that holds it."""
    name = header.rsplit("/", 1)[1]
    found = [path for path in folder.rglob(name) if path.as_posix().endswith(f"/{header}")]
    if not found:
        raise FileNotFoundError(f"{folder}: no {header} below it")
    nearest = min(found, key=lambda path: (len(path.parts), path))
    return nearest.parents[header.count("/")]


def _machine(archive: Path) -> str:
    numbers = set(_elf_machines(archive))
    if numbers == {_ARM}:
        return CORTEX_M
    if numbers == {_MACHINES.get(platform.machine())}:
        return HOST
    raise ValueError(f"{archive} is neither for Cortex-M nor for this machine: {sorted(numbers)}")


def _elf_machines(archive: Path) -> Iterator[int]:
    """e_machine of the members of an ar archive."""
    data = archive.read_bytes()
    at = len(b"!<arch>\n")
    while at + 60 <= len(data):
        member = data[at + 60 : at + 80]
        if member[:4] == b"\x7fELF":
            yield int.from_bytes(member[18:20], "little")
        size = int(data[at + 48 : at + 58])
        at += 60 + size + size % 2


def _object(compiler: str, source: Path, program: Path, options: Sequence[str]) -> Path:
    result = program.with_name(f"{program.name}-{source.stem}.o")
    _run([tool(compiler), *options, "-c", source, "-o", result])
    return result


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=180)
    if done.returncode or done.stderr:
        pytest.fail(f"{shlex.join(map(str, command))}\n{done.stderr[-4000:]}")


__all__ = ["CORTEX_M", "CPP_FLAGS", "HOST", "OUTLINE", "VARIABLE", "Tree", "find_tree", "tree_in"]
