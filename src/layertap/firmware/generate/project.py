"""The files of a firmware, from a model and what is wanted of it."""

from __future__ import annotations

import re
import shlex
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from layertap.arena.tail import resource_variables
from layertap.core.graph import format_shape
from layertap.firmware.generate.arena_size import ArenaSize
from layertap.firmware.generate.array import array_body
from layertap.firmware.generate.operators import Registration
from layertap.firmware.generate.platforms import EVERY, Platform, templates
from layertap.firmware.generate.tap_table import Tap, TapTable
from layertap.firmware.generate.text import c_string, comment, filled
from layertap.tflite.graph import MAIN
from layertap.tflite.model import TfliteModel
from layertap.tflite.sizes import stored_bytes

HEADERS = ("layertap.h", "layertap_tflm.h")
"""The device library, copied beside what is generated."""

Kind = Literal["host", "fixed", "outputs"]

MAINS = "mains"
"""The folder of templates of main.cpp, and of what README.md says of it, by kind."""

_UNWANTED: Mapping[Kind, tuple[str, ...]] = {
    "host": ("accessors.", "inputs."),
    "fixed": ("accessors.",),
    "outputs": ("taps.",),
}
"""How the names of shared templates begin that a kind has no use for."""

_CONTENTS: Mapping[Kind, str] = {
    "host": "| `taps.h` | the taps by name, and which of them are sent at first |",
    "fixed": "| `taps.h` | the taps by name, and which of them are sent |\n"
    "| `inputs.h`, `inputs.cpp` | where the inputs come from |",
    "outputs": "| `accessors.h` | the taps by name: their elements, scales and zero points |\n"
    "| `inputs.h`, `inputs.cpp` | where the inputs come from |",
}
"""Rows of the table in README.md."""

STEPS = "steps.md"
"""The template that becomes part of README.md."""

BAUD = 115200

CPP_TYPES = {
    **{name: f"{name}_t" for name in ("int8", "int16", "int32", "int64", "uint8", "uint16")},
    **{"uint32": "uint32_t", "uint64": "uint64_t", "bool": "bool"},
    **{"float32": "float", "float64": "double"},
}
"""Types of elements that accessors hand out."""

_NAME_BYTES = 63
"""Of the model's name, as the wire format allows."""

_AGAIN = "regenerate the folder with layertap firmware, README.md has the command"


@dataclass(frozen=True, slots=True)
class Project:
    """What is generated. ``model`` is what runs on the board; with ``outputs`` it has the taps as
    further outputs. ``file`` is the name of the file it came from. ``rules`` is how many the host
    can set. ``fixed``: the taps stay as they are, and nothing comes from the host."""

    model: TfliteModel
    file: str
    platform: Platform
    table: TapTable
    registrations: tuple[Registration, ...]
    arena: ArenaSize
    rules: int
    fixed: bool
    outputs: bool
    version: str
    command: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.file.removesuffix(".tflite")

    @property
    def kind(self) -> Kind:
        """Which main it has: driven by the host, or by itself."""
        if self.outputs:
            return "outputs"
        return "fixed" if self.fixed else "host"

    @property
    def customs(self) -> tuple[Registration, ...]:
        """Operators that the user writes."""
        return tuple(r for r in self.registrations if not r.method)


def project_files(project: Project) -> dict[str, bytes]:
    """Paths in the folder, with ``/``, and what is in these files. The same for the same project,
    byte for byte."""
    values = _values(project)
    platform = project.platform
    below = f"{platform.sources}/" if platform.sources else ""
    found = {
        path if path == "README.md" else below + path: text
        for path, text in templates(EVERY)
        if not path.startswith(_UNWANTED[project.kind])
    }
    found[f"{below}main.cpp"] = dict(templates(MAINS))[f"{project.kind}.cpp"]
    found |= {path: text for path, text in templates(platform.templates) if path != STEPS}
    made = {path: filled(text, values).encode() for path, text in found.items()}
    for header in HEADERS:
        made[below + header] = device_header(header)
    return dict(sorted(made.items()))


def is_yours(path: str) -> bool:
    """Whether a file is meant to be changed, and is left alone once it was."""
    return path.rpartition("/")[2] in ("wire_port.cpp", "inputs.cpp", "sketch.ino")


def device_header(name: str) -> bytes:
    """A file of the device library."""
    return (files("layertap.firmware") / "device" / name).read_bytes()


def device_version() -> str:
    """The version that the device library gives itself."""
    found = re.search(rb"#define LAYERTAP_DEVICE_VERSION (\d+)", device_header("layertap.h"))
    assert found is not None
    return found[1].decode()


def _values(project: Project) -> dict[str, str]:
    """What the placeholders of the templates stand for."""
    data = project.model.data
    values = {
        "generated": f"Generated by layertap {project.version} from {comment(project.file)}; "
        "README.md tells how to change it.",
        "again": _AGAIN,
        "version_check": _version_check(),
        "entry": project.platform.entry,
        "baud": str(BAUD),
        "model_bytes": str(len(data)),
        "model_crc": f"0x{zlib.crc32(data):08x}u",
        "model_name": c_string(_cut(project.name)),
        "model_array": array_body(data),
        "arena_origin": f"Bytes of the arena: {project.arena.origin}.",
        "arena_bytes": _arena_bytes(project.arena),
        "file": comment(project.file),
        "file_word": shlex.quote(comment(project.file)),
        "arena_sentence": _arena_sentence(project.arena),
        "command": shlex.join(project.command),
        "port": project.platform.port,
        "title": project.platform.title,
    }
    values |= _operator_values(project.registrations)
    values |= _tap_values(project)
    values |= _accessor_values(project) if project.kind == "outputs" else {}
    values |= _example(project.table)
    values["contents"] = _CONTENTS[project.kind]
    values["interpreter"] = _interpreter(project)
    steps = dict(templates(project.platform.templates))[STEPS]
    values["steps"] = filled(steps, values).rstrip("\n")
    notes = dict(templates(MAINS))
    values["usage"] = filled(notes[f"{project.kind}.md"], values).rstrip("\n")
    values["custom_notes"] = filled(notes["custom.md"], values) if project.customs else ""
    return values


def _cut(name: str) -> bytes:
    """As much of the name as the wire takes, without cutting a character in two."""
    return name.encode()[:_NAME_BYTES].decode(errors="ignore").encode()


def _version_check() -> str:
    version = device_version()
    return (
        f"#if LAYERTAP_DEVICE_VERSION != {version}\n"
        f'#error "this file was generated for version {version} of layertap.h, which is another '
        f'one: {_AGAIN}"\n'
        "#endif"
    )


def _arena_bytes(arena: ArenaSize) -> str:
    if arena.narrow == arena.wide:
        return str(arena.narrow)
    return f"sizeof(void *) > 4 ? {arena.wide} : {arena.narrow}"


def _arena_sentence(arena: ArenaSize) -> str:
    wide = "" if arena.wide == arena.narrow else f" ({arena.wide:,} where pointers have 64 bits)"
    return f"The arena has {arena.narrow:,} bytes{wide}: {arena.origin}."


def _operator_values(registrations: Sequence[Registration]) -> Mapping[str, str]:
    own = [r for r in registrations if not r.method]
    declared = "".join(f"const layertap::Registration *{r.function}();\n" for r in own)
    about = "// Operators of the model's own, which you write: README.md tells how.\n"
    header = '#include "layertap_tflm.h"\n' if own else ""
    calls = (
        f"resolver.{r.method}()" if r.method else _add_custom(r.name, r.function)
        for r in registrations
    )
    return {
        # An array of no registrations would be no C++.
        "operator_count": str(max(1, len(registrations))),
        "operator_names": ", ".join(comment(r.name) for r in registrations) or "none",
        "custom_include": header,
        "custom_declarations": f"\n{about}{declared}\n" if own else "",
        "add_operators": "".join(
            f"  if ({call} != kTfLiteOk) return kTfLiteError;\n" for call in calls
        ),
        "custom_functions": "".join(
            f"    const TFLMRegistration *{r.function}();  // {comment(r.name)}\n" for r in own
        ),
    }


def _add_custom(name: str, function: str) -> str:
    return f"resolver.AddCustom({c_string(name.encode())}, {function}())"


def _tap_values(project: Project) -> Mapping[str, str]:
    table = project.table
    chosen = ", ".join(comment(tap.point.name) for tap in table.chosen[:8])
    more = len(table.chosen) - 8
    return {
        "tensors": str(table.tensors),
        "subgraphs": str(table.subgraphs),
        "rules": str(0 if project.fixed else project.rules),
        "tap_enum": "".join(_enumerator(project.model, tap) for tap in table.taps),
        "when_sent": "" if project.fixed else " until the host says otherwise",
        "chosen": f"{chosen}{f' and {more} more' if more > 0 else ''}" if chosen else "nothing",
        "mask": ", ".join(f"0x{byte:02x}" for byte in table.mask),
    }


def _example(table: TapTable) -> Mapping[str, str]:
    """A tap that README.md writes of."""
    taps = table.chosen or table.taps[-1:]
    if not taps:
        return {"example": "NAME", "example_tap": "tap_NAME", "example_member": "NAME_tap"}
    point, name = taps[0].point, f"tap_{taps[0].identifier}"
    selector = shlex.quote(comment(point.name))
    return {"example": selector, "example_tap": name, "example_member": member(taps[0])}


def _enumerator(model: TfliteModel, tap: Tap) -> str:
    return f"  tap_{tap.identifier} = {tap.bit},  // {_described(model, tap)}\n"


def _described(model: TfliteModel, tap: Tap) -> str:
    tensor = model.subgraphs[tap.point.subgraph].tensors[tap.point.index]
    size = stored_bytes(tensor.dtype, tensor.shape)
    shape = format_shape(tensor.shape)
    return f"{comment(tap.point.name)}: {tap.point.op}, {tensor.dtype} {shape}, {size} bytes"


def _accessor_values(project: Project) -> Mapping[str, str]:
    outputs = project.model.subgraphs[MAIN].outputs
    taps = project.table.chosen
    members = (
        f"  // {_described(project.model, tap)}\n"
        f"  layertap::Accessor<{CPP_TYPES[tap.point.dtype]}> {member(tap)}"
        f"{{{outputs.index(tap.point.index)}}};\n"
        for tap in taps
    )
    return {
        "accessor_members": "".join(members),
        "accessor_binds": " &&\n           ".join(
            f"{member(tap)}.bind(interpreter)" for tap in taps
        ),
        "print_accessors": "".join(
            f"  print({c_string(tap.point.name.encode())}, taps.{member(tap)});\n" for tap in taps
        ),
    }


def member(tap: Tap) -> str:
    """The name of a tap among the members of a class; no keyword and no macro ends like it."""
    return f"{tap.identifier}_tap" if tap.identifier[0].isalpha() else f"tap_{tap.identifier}"


def _interpreter(project: Project) -> str:
    """How the interpreter is made: one with resource variables needs room for them."""
    resolver = "resolver" if project.kind == "outputs" else "tapped"
    count = resource_variables(project.model)
    if not count:
        return (
            "  static tflite::MicroInterpreter runs(tflite::GetModel(model::kData), "
            f"{resolver}, arena,\n                                       sizeof arena);"
        )
    return (
        "  static tflite::MicroAllocator *const allocator =\n"
        "      tflite::MicroAllocator::Create(arena, sizeof arena);\n"
        "  static tflite::MicroResourceVariables *const variables =\n"
        f"      tflite::MicroResourceVariables::Create(allocator, {count});\n"
        "  static tflite::MicroInterpreter runs(tflite::GetModel(model::kData), "
        f"{resolver}, allocator,\n                                       variables);"
    )


__all__ = [
    "BAUD",
    "CPP_TYPES",
    "HEADERS",
    "Kind",
    "Project",
    "device_header",
    "device_version",
    "is_yours",
    "project_files",
]
