"""layertap_tflm.h: compilers; and what its parts promise, on a real TensorFlow Lite Micro."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import tapmodels
from tflm_tree import CPP_FLAGS, HOST, OUTLINE, Tree
from toolchain import DEVICE, SANITIZERS, WARNINGS, compiled, tool

from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite

HERE = Path(__file__).parent
CASES = re.findall(r"CASE\((\w+)\)[,}]", (HERE / "tflm_cases.cc").read_text())
EVERYTHING = HERE / "tflm_everything.cc"
STRICT = (*WARNINGS, "-Wshadow", "-Wconversion", "-Wundef")
pytestmark = pytest.mark.slow


def quantized() -> bytes:
    tensors = [TensorSpec(name, (1, 1), "int8", scales=[0.5], zero_points=[-4]) for name in "xy"]
    return write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("RELU", [0], [1])]))


def arrays(models: dict[str, bytes]) -> str:
    """A header with the models as constants."""
    lines = []
    for name, data in models.items():
        numbers = ",".join(map(str, data))
        lines += [f"alignas(16) const unsigned char {name}[] = {{{numbers}}};"]
        lines += [f"constexpr unsigned {name}Bytes = sizeof {name};"]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def said(tflm_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the program says of each case."""
    folder = tmp_path_factory.mktemp("cases")
    models = {"kChain": tapmodels.chain(), "kLoops": tapmodels.loops(), "kQuantized": quantized()}
    (folder / "tflm_models.h").write_text(arrays(models))
    checks = SANITIZERS if tflm_tree.machine == HOST else ()
    sources = [HERE / "tflm_cases.cc"]
    program = tflm_tree.program(sources, folder / "cases", f"-I{folder}", *checks)
    lines = []
    with subprocess.Popen(
        tflm_tree.command(program), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            lines.append(line.strip())
            if lines[-1] in ("end", "processor fault"):
                break
        run.kill()
    assert lines[-1:] == ["end"], lines
    verdicts = [line.partition(" ") for line in lines if line.startswith(("ok ", "FAILED "))]
    return {rest.partition(":")[0]: " ".join((verdict, rest)) for verdict, _, rest in verdicts}


@pytest.mark.parametrize("case", CASES)
def test_case(said: dict[str, str], case: str) -> None:
    assert said[case] == f"ok {case}"


@pytest.mark.parametrize("standard", ["c++17", "c++20"])
@pytest.mark.parametrize("compiler", ["g++", "clang++", "arm-none-eabi-g++"])
def test_compiles_without_a_warning(compiler: str, standard: str, tmp_path: Path) -> None:
    """Everything of it, used; Probes and Sinks are constants, which C++20 checks."""
    flags = [*CPP_FLAGS, f"-std={standard}", *STRICT, "-isystem", str(OUTLINE)]
    compiled(compiler, [EVERYTHING], tmp_path / "everything.o", *flags, "-O2", "-c")


@pytest.mark.parametrize("standard", ["c++17", "c++20"])
def test_compiles_with_the_real_headers(tflm_tree: Tree, standard: str, tmp_path: Path) -> None:
    compilers = ["g++", "clang++"] if tflm_tree.machine == HOST else [tflm_tree.compiler]
    for compiler in compilers:
        flags = [*tflm_tree.flags(standard), *STRICT, "-O2", "-c"]
        compiled(compiler, [EVERYTHING], tmp_path / "everything.o", *flags)


def wrong(use: str, folder: Path) -> Path:
    """A source with something that is a mistake."""
    source = folder / "wrong.cc"
    source.write_text(
        '#include "layertap_tflm.h"\n'
        "tflite::MicroMutableOpResolver<7> ops;\n"
        "const tflite::MicroMutableOpResolver<7> &constant = ops;\n"
        "layertap::Probe<3> probe(nullptr, 0);\n"
        f"void use() {{ {use} }}\n"
    )
    return source


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        ("layertap::TapResolver tapped(constant, probe);", "must be a MicroMutableOpResolver"),
        ("layertap::TapResolver<2> tapped(ops, probe);", "must be a MicroMutableOpResolver"),
        ("probe.on(1, nullptr);", "say how many callbacks"),
        ("layertap::Probe<0> none(nullptr, 0);", "a model has tensors"),
    ],
)
def test_what_cannot_work_does_not_compile(use: str, sentence: str, tmp_path: Path) -> None:
    headers = [f"-I{DEVICE}", "-isystem", str(OUTLINE)]
    command = [tool("g++"), *CPP_FLAGS, *headers, "-fsyntax-only", str(wrong(use, tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert sentence in re.sub(r'"\s*"', "", done.stderr)
