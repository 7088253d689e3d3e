"""What the device files cost a firmware for Cortex-M3, in bytes.

``python tests/firmware/sizes.py`` prints it, with ``--record`` it writes sizes.json, which
test_sizes.py compares. Rows that need TensorFlow Lite Micro are measured where
LAYERTAP_TFLM_DIR names a tree for Cortex-M.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tflm_tree import CORTEX_M, CPP_FLAGS, OUTLINE, Tree, find_tree
from toolchain import CORTEX_M3, DEVICE, WARNINGS, tool

HERE = Path(__file__).parent
RECORD = HERE / "sizes.json"
TAPPED = HERE / "device" / "size_tflm.cc"
GROWTH = 1.02
"""How much more than recorded is still taken."""
C_COMPILER, CPP_COMPILER = "arm-none-eabi-gcc", "arm-none-eabi-g++"


@dataclass(frozen=True)
class Size:
    """Bytes. ``code`` are instructions and constants, ``ram`` what is static, ``stack`` the
    deepest that a call needs before it comes to the firmware's own write, 0 where unknown."""

    code: int
    ram: int
    stack: int = 0


@dataclass(frozen=True)
class Row:
    """``measure`` gets a folder for its files, and returns None where something it needs is not
    there. Budgets are bytes, None for none."""

    name: str
    measure: Callable[[Path], Size | None]
    code: int | None = None
    ram: int | None = None


def object_file(source: Path, folder: Path, *flags: str) -> Path:
    """``source`` compiled for Cortex-M3; its stack usage lies beside, with the suffix .su."""
    result = folder / f"{source.stem}.o"
    options = [*CORTEX_M3, *WARNINGS, "-fstack-usage", f"-I{DEVICE}", *flags]
    compiler = tool(C_COMPILER if source.suffix == ".c" else CPP_COMPILER)
    command = [compiler, *options, "-c", str(source), "-o", str(result)]
    subprocess.run(command, check=True, timeout=120)
    return result


def sections(file: Path) -> dict[str, int]:
    """Bytes of the sections of an object or a program by name."""
    command = [tool("arm-none-eabi-size"), "-A", str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    rows = re.findall(r"^(\.\S+)\s+(\d+)\s", done.stdout, re.MULTILINE)
    sizes: dict[str, int] = {}
    for name, size in rows:
        sizes[name] = sizes.get(name, 0) + int(size)
    return sizes


def code_and_ram(file: Path) -> Size:
    """Of an object or a program; initialised data counts as both."""
    found = sections(file)

    def total(*kinds: str) -> int:
        return sum(size for name, size in found.items() if name.startswith(kinds))

    return Size(total(".text", ".rodata", ".data"), total(".data", ".bss"))


def stack_of(file: Path) -> dict[str, int]:
    """Bytes of stack that each function of an object takes, without those that it calls; variants
    that the compiler makes (send.constprop) go by the name of the function."""
    rows = file.with_suffix(".su").read_text().splitlines()
    fields = [row.split("\t") for row in rows]
    return {place.rsplit(":", 1)[1].partition(".")[0]: int(size) for place, size, _ in fields}


def encoder(folder: Path) -> Size:
    """HELLO, TENSOR, DONE, ANSWER and one encoder; nothing of a C library."""
    found = object_file(HERE / "device" / "size_encoder.c", folder, "-std=c99")
    stack = stack_of(found)
    deepest = max(stack[name] for name in ("hello", "tensor", "done", "answer"))
    size = code_and_ram(found)
    inner = sum(stack.get(name, 0) for name in ("layertap_send", "layertap_gather"))
    return Size(size.code, size.ram, deepest + inner)


def receiver(folder: Path) -> Size:
    """The way back: commands and one receiver, without its buffer; the CRC counted once more."""
    found = object_file(HERE / "device" / "size_receiver.c", folder, "-std=c99")
    size = code_and_ram(found)
    return Size(size.code, size.ram, max(stack_of(found).values()))


def reductions(folder: Path) -> Size:
    """Slices, summaries and histograms, without the arithmetic that the compiler's library has."""
    found = object_file(HERE / "device" / "size_reductions.c", folder, "-std=c99")
    return Size(code_and_ram(found).code, 0, sum(stack_of(found).values()))


def resolver(folder: Path) -> Size:
    """A TapResolver around 16 types of operators, without a TensorFlow Lite Micro."""
    flags = [*CPP_FLAGS, "-isystem", str(OUTLINE)]
    return difference(1, 0, partial(tapped_object, folder, flags))


def resolver_in_tflm(folder: Path) -> Size | None:
    """The same with the real headers. Taken from object files too: in a program, what else moves to
    be aligned counts for more than a growth that matters."""
    tree = cortex_m_tree()
    return tree and difference(1, 0, partial(tapped_object, folder, tree.flags()))


def added(folder: Path, part: int, to: int) -> Size | None:
    """What a part of size_tflm.cc adds to the whole program of another."""
    tree = cortex_m_tree()
    return tree and difference(part, to, partial(tapped_program, folder, tree))


def cortex_m_tree() -> Tree | None:
    tree = find_tree()
    return tree if tree is not None and tree.machine == CORTEX_M else None


def tapped_object(folder: Path, flags: Sequence[str], part: int) -> Path:
    return object_file(TAPPED, folder, *flags, f"-DPART={part}")


def tapped_program(folder: Path, tree: Tree, part: int) -> Path:
    return tree.program([TAPPED], folder / f"part{part}", f"-DPART={part}")


def difference(part: int, to: int, build: Callable[[int], Path]) -> Size:
    one, other = code_and_ram(build(part)), code_and_ram(build(to))
    return Size(one.code - other.code, one.ram - other.ram)


ROWS = (
    Row("encoder", encoder, code=1536, ram=128),
    Row("receiver", receiver),
    Row("reductions", reductions),
    Row("resolver", resolver, code=256, ram=256),
    Row("resolver in TFLM", resolver_in_tflm, code=256, ram=256),
    Row("probe without a link", partial(added, part=2, to=1)),
    Row("probe", partial(added, part=3, to=1)),
    Row("board", partial(added, part=4, to=3)),
    Row("everything", partial(added, part=5, to=0)),
)


def compiler_version() -> str:
    command = [tool(C_COMPILER), "--version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines()[0]


def recorded() -> tuple[str, Mapping[str, Size]]:
    """The compiler of the record, and the sizes by row."""
    record = json.loads(RECORD.read_text())
    return record["compiler"], {name: Size(**size) for name, size in record["bytes"].items()}


def measured() -> dict[str, Size]:
    """The sizes of all rows that can be measured here."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {row.name: row.measure(Path(folder)) for row in ROWS}
    return {name: size for name, size in sizes.items() if size is not None}


def write_record(sizes: Mapping[str, Size]) -> None:
    """Rows that were not measured here stay as they are."""
    before = recorded()[1] if RECORD.exists() else {}
    rows = {name: asdict(size) for name, size in {**before, **sizes}.items()}
    record = {"compiler": compiler_version(), "flags": " ".join(CORTEX_M3), "bytes": rows}
    RECORD.write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    arguments = parser.parse_args()
    sizes = measured()
    budgets = {row.name: row for row in ROWS}
    print(f"{compiler_version()}, {' '.join(CORTEX_M3)}")
    for name, size in sizes.items():
        limit = budgets[name]
        allowed = f"at most {limit.code} and {limit.ram}" if limit.code is not None else ""
        print(f"{name:20} code {size.code:6,}  RAM {size.ram:5,}  stack {size.stack:4,}  {allowed}")
    if arguments.record:
        write_record(sizes)


if __name__ == "__main__":
    main()

__all__ = [
    "GROWTH",
    "ROWS",
    "Row",
    "Size",
    "code_and_ram",
    "compiler_version",
    "measured",
    "object_file",
    "recorded",
    "sections",
    "stack_of",
]
