"""The files of a firmware, as text; whether they compile is tested beside this."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from layertap.demo import asset
from layertap.firmware.generate.arena_size import ArenaSize
from layertap.firmware.generate.operators import registrations
from layertap.firmware.generate.platforms import PLATFORMS
from layertap.firmware.generate.project import (
    Kind,
    Project,
    device_version,
    is_yours,
    project_files,
)
from layertap.firmware.generate.tap_table import tap_table
from layertap.testing.micro_graphs import graph_cases
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.edit import with_outputs
from layertap.tflite.model import parse

CASES = graph_cases()
VARIABLES = next(name for name in CASES if "VAR_HANDLE" in name)
STRANGE = write_tflite(
    SubgraphSpec(
        [TensorSpec('*/ "@again@"\\', (1, 4)), TensorSpec("a\nb", (1, 4))],
        [0],
        [1],
        [OperatorSpec('my"op\\', [0], [1])],
    )
)
MODELS = {
    "digits": asset("digits_int8.tflite").read_bytes(),
    "while": CASES["WHILE"](),
    "variables": CASES[VARIABLES](),
    "strange": STRANGE,
}
LINK = {"wire_port.cpp", "wire_port.h"}
SHARED = {"layertap.h", "layertap_tflm.h", "main.cpp", "model.cpp", "model.h", "ops.h"} | LINK
OWN = {
    "generic": {"Makefile"},
    "arduino": {"sketch/sketch.ino"},
    "esp-idf": {"CMakeLists.txt", "sdkconfig.defaults"}
    | {"main/CMakeLists.txt", "main/idf_component.yml"},
    "zephyr": {"CMakeLists.txt", "prj.conf"},
    "pico": {"CMakeLists.txt"},
    "qemu-mps2": {"Makefile", "memory.ld", "startup.c", "uart.c", "uart.h"},
}
EXTRA = {
    "host": {"taps.h"},
    "fixed": {"taps.h", "inputs.cpp", "inputs.h"},
    "outputs": {"accessors.h", "inputs.cpp", "inputs.h"},
}


def project(platform: str, data: bytes, kind: Kind = "host", file: str = "net.tflite") -> Project:
    model = parse(data)
    table = tap_table(model, None if kind == "host" else "kind:output")
    if kind == "outputs":
        indices = [tap.point.index for tap in table.chosen]
        model = parse(with_outputs(data, indices))
    return Project(
        model=model,
        file=file,
        platform=PLATFORMS[platform],
        kind=kind,
        table=table,
        registrations=registrations(model),
        arena=ArenaSize(1024, 2048, "as the test says"),
        shared=(),
        rules=3,
        version="9.9",
        command=("layertap", "firmware", file, "-o", "."),
    )


def texts(made: Mapping[str, bytes]) -> dict[str, str]:
    return {path: data.decode() for path, data in made.items()}


def generated(made: Mapping[str, bytes]) -> dict[str, str]:
    """What is C++ and not copied."""
    return {
        path: text
        for path, text in texts(made).items()
        if path.endswith((".h", ".cpp")) and not re.search(r"layertap(_tflm)?\.h|uart\.h", path)
    }


@pytest.mark.parametrize("kind", EXTRA)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_files_of_each_platform(platform: str, kind: str) -> None:
    made = project_files(project(platform, MODELS["digits"], kind))
    below = PLATFORMS[platform].sources
    sources = {f"{below}/{name}" if below else name for name in SHARED | EXTRA[kind]}
    assert set(made) == sources | OWN[platform] | {"README.md"}
    assert list(made) == sorted(made)


@pytest.mark.parametrize(
    ("kind", "verb"), [("host", "capture"), ("fixed", "listen"), ("outputs", None)]
)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_last_step_is_a_command_that_suits_the_firmware(
    platform: str, kind: Kind, verb: str | None
) -> None:
    made = texts(project_files(project(platform, MODELS["digits"], kind, "my net.tflite")))
    (last,) = re.findall(r"^5\. .*?(?=^\S|\Z)", made["README.md"], re.DOTALL | re.MULTILINE)
    commands = [shlex.split(found) for found in re.findall(r"`layertap (.+?)`", last)]
    assert [words[0] for words in commands] == ([verb] if verb else [])
    for words in commands:
        command = getattr(import_module(f"layertap.cli.{verb}"), words[0])
        parsed = command.make_context(words[0], words[1:]).params
        assert "my net.tflite" in parsed.values()
        assert PLATFORMS[platform].port in parsed.values()


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("model", MODELS)
def test_the_same_again(platform: str, model: str) -> None:
    first, second = (project_files(project(platform, MODELS[model])) for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_the_same_in_another_process_and_folder(tmp_path: Path) -> None:
    code = (
        "import sys, layertap\n"
        "layertap.generate_firmware(sys.argv[1], 'made', 'zephyr', taps=['op:CONV_2D', 'pool'])"
    )
    folders = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        (folder / "net.tflite").write_bytes(MODELS["digits"])
        subprocess.run(
            [sys.executable, "-c", code, str(folder / "net.tflite")],
            cwd=folder, env={"PYTHONHASHSEED": str(seed + 1)}, check=True, timeout=60,
        )  # fmt: skip
    one, two = (
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in folders
    )
    assert len(one) > 10
    assert one == two


@pytest.mark.parametrize("kind", EXTRA)
@pytest.mark.parametrize("model", ["digits", "strange"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_no_placeholder_is_left_and_braces_match(platform: str, model: str, kind: str) -> None:
    made = project_files(project(platform, MODELS[model], kind))
    for path, text in texts(made).items():
        assert not re.search(r"@[a-z]+(_[a-z]+)*@", text), path
        assert text.endswith("\n")
        assert not text.endswith("\n\n"), path
        if path.endswith((".h", ".cpp")):
            assert text.count("{") == text.count("}"), path
            assert text.count("\n#if") == text.count("\n#endif"), path


@pytest.mark.parametrize("kind", EXTRA)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_is_included_is_there(platform: str, kind: str) -> None:
    made = project_files(project(platform, MODELS["strange"], kind))
    for path, text in generated(made).items():
        for name in re.findall(r'#include "([^"/]+)"', text):
            beside = path.rpartition("/")[0]
            # sdkconfig.h is made by ESP-IDF's own build.
            assert name == "sdkconfig.h" or (f"{beside}/{name}" if beside else name) in made


def test_generated_files_compare_versions() -> None:
    version = device_version()
    made = project_files(project("generic", MODELS["digits"]))
    for path in ("model.h", "ops.h", "taps.h", "main.cpp"):
        assert f"#if LAYERTAP_DEVICE_VERSION != {version}\n#error" in made[path].decode()


def test_the_model_is_there_byte_for_byte() -> None:
    data = MODELS["digits"]
    text = project_files(project("generic", data))["model.cpp"].decode()
    body = re.search(r"alignas\(16\) const uint8_t kData\[\] = \{(.*?)\}", text, re.DOTALL)
    assert body is not None
    assert bytes(int(byte, 16) for byte in re.findall(r"0x(..),", body[1])) == data


def test_the_tap_table() -> None:
    wanted = project("generic", MODELS["while"])
    text = project_files(wanted)["taps.h"].decode()
    bits = {name: int(bit) for name, bit in re.findall(r"  (tap_\w+) = (\d+),", text)}
    assert bits == {f"tap_{tap.identifier}": tap.bit for tap in wanted.table.taps}
    assert f"kTensors = {wanted.table.tensors};" in text
    assert "kSubgraphs = 3;" in text
    assert "kRules = 3;" in text
    fixed = project_files(project("generic", MODELS["digits"], "fixed"))["taps.h"].decode()
    assert "kRules = 0;" in fixed
    assert "kMask[] = {0x00, 0x00, 0x02};" in fixed  # probabilities is tensor 17


def test_operators_and_where_to_write_ones_own() -> None:
    made = texts(project_files(project("generic", MODELS["digits"])))
    assert "MicroMutableOpResolver<7>" in made["ops.h"]
    assert "Operators that you write" not in made["README.md"]
    strange = texts(project_files(project("generic", STRANGE)))
    assert r'AddCustom("my\042op\134", layertap_register_my_op())' in strange["ops.h"]
    assert "const layertap::Registration *layertap_register_my_op();" in strange["ops.h"]
    assert "const TFLMRegistration *layertap_register_my_op();" in strange["README.md"]


def test_resource_variables_get_room() -> None:
    made = texts(project_files(project("generic", MODELS["variables"])))
    assert "MicroResourceVariables::Create(allocator, 2)" in made["main.cpp"]


def test_accessors_know_their_outputs() -> None:
    wanted = project("generic", MODELS["digits"])
    table = tap_table(wanted.model, ["pool", "probabilities"])
    model = parse(with_outputs(wanted.model.data, [tap.point.index for tap in table.chosen]))
    text = project_files(replace(wanted, model=model, table=table, kind="outputs"))["accessors.h"]
    assert b"Accessor<int8_t> pool_tap{1};" in text
    assert b"Accessor<int8_t> probabilities_tap{0};" in text


def test_names_of_models_are_cut_whole() -> None:
    made = project_files(project("generic", MODELS["digits"], file="ü" * 40 + ".tflite"))
    name = re.search(r'kName\[\] = "(.*)";', made["model.h"].decode())
    assert name is not None
    assert name[1] == r"\303\274" * 31


def test_files_that_are_yours() -> None:
    made = project_files(project("arduino", MODELS["digits"], "fixed"))
    assert [path for path in made if is_yours(path)] == [
        "sketch/inputs.cpp",
        "sketch/sketch.ino",
        "sketch/wire_port.cpp",
    ]
