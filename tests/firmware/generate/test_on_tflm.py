"""Generated firmware, built with a real TensorFlow Lite Micro, at work."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tflm_tree import HOST, Tree
from toolchain import WARNINGS, tool

import layertap
from layertap.arena.target import load_target
from layertap.demo import asset, digits
from layertap.onchip import Firmware
from layertap.testing.micro_graphs import graph_cases
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DIGITS = asset("digits_int8.tflite")
CASES = graph_cases()

Build = Callable[..., Firmware]


@pytest.fixture
def build(tree: Tree, tmp_path: Path) -> Build:
    """``build(source, **options)``: generated firmware, compiled by its own Makefile."""

    def made(source: Path | bytes, more: dict[str, str] | None = None, **options: Any) -> Firmware:
        platform = "generic" if tree.machine == HOST else "qemu-mps2"
        firmware = layertap.generate_firmware(source, tmp_path / "fw", platform, **options)
        for name, text in (more or {}).items():
            (firmware.folder / name).write_text(text)
        done = subprocess.run(
            [tool("make"), "-s", f"TFLM_DIR={tree.folder}"],
            cwd=firmware.folder, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        if done.returncode or done.stderr:
            raise AssertionError(done.stderr)
        return firmware

    return made


def command(firmware: Firmware) -> list[str]:
    """What runs it, from any folder."""
    words = shlex.split(firmware.port.removeprefix("exec:"))
    return [str(firmware.folder / word) if word.startswith("build/") else word for word in words]


def port(firmware: Firmware) -> str:
    return f"exec:{shlex.join(command(firmware))}"


def on_board(firmware: Firmware, source: Path | bytes, x: Any, taps: Any = "*") -> layertap.Run:
    with layertap.open(source, "device", port=port(firmware), timeout=30) as model:
        return model.capture(x, taps)


def printed(firmware: Firmware, *, seconds: float = 20) -> bytes:
    """What it sends without being asked. The emulator does not end, and is ended."""
    running = subprocess.Popen(
        command(firmware), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        return running.communicate(b"", timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        running.kill()
        return running.communicate()[0]


def test_every_tap_is_what_the_interpreter_on_this_machine_has(build: Build) -> None:
    pytest.importorskip("tflite_micro")
    x = digits().image[:3]
    firmware = build(DIGITS, rules=0)
    run = on_board(firmware, DIGITS, x)
    with layertap.open(DIGITS, "tflm") as model:
        expected = model.capture(x, "*")
    assert list(run) == list(expected)
    for name, capture in run.items():
        np.testing.assert_array_equal(capture.raw, expected[name].raw)
    about = run.provenance["board"]
    assert isinstance(about, dict)
    assert about["name"] == "digits_int8"
    assert about["arena_used"] == _used(firmware)


def _used(firmware: Firmware) -> int:
    """What the memory map says of the arena."""
    if firmware.platform == "qemu-mps2":
        return layertap.memory(DIGITS, "cortex-m").arena.used
    version = load_target("cortex-m").commit
    return layertap.memory(DIGITS, "host", version=version, recording=False).arena.used


def test_an_arena_that_is_too_small_is_said(build: Build) -> None:
    firmware = build(DIGITS, arena=2048)
    with pytest.raises(layertap.LayertapError, match="may be too small") as caught:
        on_board(firmware, DIGITS, digits().image[:1])
    # A program of this machine prints it on its standard error, which is not the link.
    if firmware.platform == "qemu-mps2":
        assert re.search(r"it printed that [\d,]+ bytes are missing", caught.value.message)
        assert "--arena" in caught.value.hint


def test_fixed_taps_are_sent_without_a_question(build: Build, tmp_path: Path) -> None:
    firmware = build(DIGITS, taps=["pool", "kind:output"], fixed=True)
    (tmp_path / "sent.bin").write_bytes(printed(firmware, seconds=4))
    run = layertap.listen(tmp_path / "sent.bin", DIGITS, samples=1)
    assert list(run) == ["pool", "probabilities"]
    with layertap.open(DIGITS, "litert", kernels="reference") as model:
        expected = model.capture(np.zeros((1, 8, 8, 1), np.int8), ["pool", "kind:output"])
    for name, capture in run.items():
        np.testing.assert_array_equal(capture.raw, expected[name].raw)


def test_outputs_are_read_by_name(build: Build) -> None:
    firmware = build(DIGITS, taps=["pool", "kind:output"], outputs=True)
    said = printed(firmware, seconds=4).decode()
    assert "pool: 256 elements, scale " in said
    assert "probabilities: 10 elements, scale 3906/1000000, zero point -128" in said


OWN = """
#include "ops.h"
#include "tensorflow/lite/kernels/internal/tensor_ctypes.h"
#include "tensorflow/lite/kernels/kernel_util.h"
#include "tensorflow/lite/micro/kernels/kernel_util.h"

namespace {
TfLiteStatus doubled(TfLiteContext *context, TfLiteNode *node) {
  const TfLiteEvalTensor *x = tflite::micro::GetEvalInput(context, node, 0);
  TfLiteEvalTensor *y = tflite::micro::GetEvalOutput(context, node, 0);
  for (int i = 0; i < 4; ++i) y->data.f[i] = 2 * x->data.f[i];
  return kTfLiteOk;
}
}  // namespace

const TFLMRegistration *layertap_register_my_doubled() {
  static const TFLMRegistration made = tflite::micro::RegisterOp(nullptr, nullptr, doubled);
  return &made;
}
"""


def test_ones_own_operator(build: Build) -> None:
    tensors = [TensorSpec(name, (1, 4)) for name in ("x", "twice", "y")]
    steps = [OperatorSpec("My:Doubled", [0], [1]), OperatorSpec("RELU", [1], [2])]
    source = write_tflite(SubgraphSpec(tensors, [0], [2], steps))
    firmware = build(source, {"custom_ops.cpp": OWN}, arena="4K")
    x = np.array([[1, -2, 3, -4]], np.float32)
    run = on_board(firmware, source, x)
    np.testing.assert_array_equal(run["twice"].raw, 2 * x)
    np.testing.assert_array_equal(run["y"].raw, np.maximum(2 * x, 0))


def test_without_ones_own_operator_the_linker_names_it(build: Build) -> None:
    tensors = [TensorSpec(name, (1, 4)) for name in ("x", "y")]
    source = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("Mine", [0], [1])]))
    with pytest.raises(AssertionError, match="undefined reference to .layertap_register_mine"):
        build(source, arena="4K")


def test_resource_variables_have_room(build: Build) -> None:
    pytest.importorskip("tflite_micro")
    source = CASES[next(name for name in CASES if "VAR_HANDLE" in name)]()
    with layertap.open(source, "tflm") as model:
        (spec,) = model.session.inputs
        x = np.arange(3 * 4, dtype=np.float32).reshape(3, *(spec.shape or ())[1:])
        expected = model.capture(x, "kind:output")
    run = on_board(build(source), source, x, "kind:output")
    for name, capture in run.items():
        np.testing.assert_array_equal(capture.raw, expected[name].raw)


@pytest.mark.parametrize("kind", ["host", "fixed", "outputs"])
@pytest.mark.parametrize(("compiler", "standard"), [("g++", "c++17"), ("clang++", "c++20")])
def test_without_warnings(
    tree: Tree, tmp_path: Path, compiler: str, standard: str, kind: str
) -> None:
    if tree.machine != HOST:
        pytest.skip("clang has no headers of its own for a chip")
    options = {} if kind == "host" else {"taps": "pool", kind: True}
    made = layertap.generate_firmware(DIGITS, tmp_path / "fw", "generic", **options)
    flags = [*tree.flags(standard), *WARNINGS, "-Wno-unused-const-variable", "-fsyntax-only"]
    for path in made.files:
        if path.endswith(".cpp"):
            done = subprocess.run(
                [tool(compiler), *flags, path],
                cwd=made.folder, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, ""), path
