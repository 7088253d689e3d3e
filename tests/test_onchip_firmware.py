"""Firmware from a model, as the library makes it."""

from __future__ import annotations

from pathlib import Path

import pytest

import layertap
from layertap.core.files import read_whole
from layertap.demo import asset
from layertap.errors import (
    CorruptModel,
    LayertapError,
    NoSuchTap,
    PlanError,
    SourceError,
    Untappable,
)
from layertap.firmware.generate.arena_size import ArenaSize, with_margin
from layertap.firmware.generate.platforms import PLATFORMS
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.relayout import with_layout

DIGITS = asset("digits_int8.tflite")


def model(operator: str) -> bytes:
    tensors = [TensorSpec("x", (1, 4)), TensorSpec("y", (1, 4))]
    return write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec(operator, [0], [1])]))


def test_a_folder_and_what_is_told_of_it(tmp_path: Path) -> None:
    made = layertap.generate_firmware(DIGITS, tmp_path / "fw", "pico", taps="op:CONV_2D")
    assert sorted(made.written) == sorted(made.files)
    assert all((tmp_path / "fw" / path).is_file() for path in made.files)
    assert made.taps == ("stem_relu", "pointwise_norm")
    assert made.readable == 9
    assert "CONV_2D" in made.operators
    assert made.custom == {}
    again = layertap.generate_firmware(DIGITS, tmp_path / "fw", "pico", taps="op:CONV_2D")
    assert again.written == ()
    assert again.unchanged == made.files


def test_the_arena_is_that_of_the_memory_map(tmp_path: Path) -> None:
    made = layertap.generate_firmware(DIGITS, tmp_path, "qemu-mps2")
    assert made.arena == layertap.memory(DIGITS, "cortex-m").arena.minimum
    margin = layertap.generate_firmware(DIGITS, tmp_path, "esp-idf")
    assert margin.arena - layertap.memory(DIGITS, "ilp32").arena.minimum >= 2048
    assert "reference kernels" in margin.arena_origin


def test_what_is_not_known_of_the_arena_is_said(tmp_path: Path) -> None:
    made = layertap.generate_firmware(DIGITS, tmp_path, "zephyr")
    asked = "what the cmsis_nn kernels of ADD, CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED"
    assert [what.startswith(asked) for what in made.arena_guessed] == [True]
    for file in ("README.md", "src/model.h"):
        text = (tmp_path / file).read_text()
        words = " ".join(text.replace("//", " ").split())
        assert f"Not known is {asked}" in words
        assert "may need more than this" in words
    known = layertap.generate_firmware(DIGITS, tmp_path, "zephyr", kernels="reference")
    assert known.arena_guessed == ()
    assert known.arena == layertap.generate_firmware(DIGITS, tmp_path / "b", "generic").arena
    assert "Not known" not in (tmp_path / "README.md").read_text()
    assert "--kernels reference -o ." in (tmp_path / "README.md").read_text()
    with pytest.raises(SourceError, match="there are no kernels 'mine'"):
        layertap.generate_firmware(DIGITS, tmp_path, "zephyr", kernels="mine")


SHARING = with_layout(
    write_tflite(
        SubgraphSpec(
            [TensorSpec(name, (1, 16)) for name in "xyz"],
            [0],
            [2],
            [OperatorSpec("ADD", [0, 0], [1]), OperatorSpec("NEG", [1], [2])],
        )
    ),
    [0, 0, 64],
)
"""The sum lies over its operand."""


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_layout_that_the_kernels_may_not_bear_is_refused(tmp_path: Path, platform: str) -> None:
    if PLATFORMS[platform].kernels:
        library = PLATFORMS[platform].kernels[0]
        with pytest.raises(PlanError, match=f"not known to be with those of {library}") as caught:
            layertap.generate_firmware(SHARING, tmp_path / "fw", platform)
        assert f"--kernels {library}" in caught.value.hint
        assert not (tmp_path / "fw").exists()
        mended = layertap.optimize(SHARING, sharing="none", verify=False).data
        layertap.generate_firmware(mended, tmp_path / "mended", platform)
    else:
        with pytest.raises(PlanError, match="not known to be with those of cmsis_nn"):
            layertap.generate_firmware(SHARING, tmp_path / "fw", platform, kernels="cmsis_nn")
    layertap.generate_firmware(SHARING, tmp_path / "fw", platform, kernels="reference")
    (header,) = (tmp_path / "fw").rglob("model.h")
    assert "#if defined(CMSIS_NN) || defined(ESP_NN)" in header.read_text()
    text = " ".join((tmp_path / "fw" / "README.md").read_text().split())
    assert "lays the result of 1 operators over what they read" in text


def test_a_layout_that_no_kernels_bear_is_refused(tmp_path: Path) -> None:
    broken = with_layout(SHARING, [0, 16, 64])
    with pytest.raises(PlanError, match="'x' and 'y' share bytes while both are needed"):
        layertap.generate_firmware(broken, tmp_path / "fw", kernels="reference")


def test_outputs_enlarge_the_arena(tmp_path: Path) -> None:
    plain = layertap.generate_firmware(DIGITS, tmp_path / "a", "qemu-mps2", taps="stem_relu")
    more = layertap.generate_firmware(
        DIGITS, tmp_path / "b", "qemu-mps2", taps="stem_relu", outputs=True
    )
    assert more.arena > plain.arena
    assert more.arena == layertap.memory(DIGITS, "cortex-m", taps="stem_relu").arena.minimum


def test_another_platform_in_the_same_folder_replaces_the_first(tmp_path: Path) -> None:
    layertap.generate_firmware(DIGITS, tmp_path, "esp-idf")
    made = layertap.generate_firmware(DIGITS, tmp_path, "generic")
    assert "main/main.cpp" in made.removed
    assert not (tmp_path / "main").exists()


def test_the_command_in_the_readme(tmp_path: Path) -> None:
    layertap.generate_firmware(
        DIGITS, tmp_path, "generic", taps=["stem_relu"], fixed=True, arena="96K"
    )
    text = (tmp_path / "README.md").read_text()
    command = "layertap firmware digits_int8.tflite --platform generic --taps stem_relu --fixed"
    assert f"{command} --arena 96K -o ." in text


def test_selectors_of_every_kind_in_the_command(tmp_path: Path) -> None:
    tap = layertap.open(DIGITS, "tflm").graph["pool"]
    for number, (taps, words) in enumerate(
        [
            (None, ""),
            ("p*", " --taps 'p*'"),
            (tap, " --taps pool"),
            (["logits", tap], " --taps logits --taps pool"),
            (lambda tap: tap.name == "pool", " --taps ..."),
        ]
    ):
        folder = tmp_path / str(number)
        layertap.generate_firmware(DIGITS, folder, "generic", taps=taps)
        assert f"--platform generic{words} -o ." in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"platform": "ardiuno"}, LayertapError, "near names: arduino"),
        ({"taps": "stem_relo"}, NoSuchTap, "near names: stem_relu"),
        ({"taps": "kind:weight"}, Untappable, "is a weight"),
        ({"fixed": True}, PlanError, "none are given"),
        ({"outputs": True}, PlanError, "no taps are given"),
        ({"taps": "*", "fixed": True, "outputs": True}, PlanError, "two ways"),
        ({"arena": "much"}, PlanError, "give the arena in bytes"),
        ({"arena": 0}, PlanError, "is not possible"),
        ({"rules": 256}, PlanError, "0 to 255"),
        ({"rules": 2, "taps": "*", "fixed": True}, PlanError, "nobody sets any with fixed"),
    ],
)
def test_what_cannot_be(tmp_path: Path, options: dict, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        layertap.generate_firmware(DIGITS, tmp_path / "fw", **options)
    assert said in str(caught.value)
    assert not (tmp_path / "fw").exists()


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        layertap.generate_firmware(tmp_path / "nothing.tflite", tmp_path / "fw")
    with pytest.raises(CorruptModel):
        layertap.generate_firmware(b"nothing", tmp_path / "fw")


def test_operators_that_the_chip_lacks(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no kernel for GELU"):
        layertap.generate_firmware(model("GELU"), tmp_path / "fw")


def test_models_that_cannot_be_planned(tmp_path: Path) -> None:
    huge = [TensorSpec("x", (1, 1 << 20)), TensorSpec("y", (1 << 12, 1 << 20))]
    data = write_tflite(SubgraphSpec(huge, [0], [1], [OperatorSpec("RELU", [0], [1])]))
    with pytest.raises(CorruptModel, match="would take"):
        layertap.generate_firmware(data, tmp_path / "fw")


def test_ones_own_operators(tmp_path: Path) -> None:
    made = layertap.generate_firmware(model("Mine"), tmp_path / "fw", arena=4096)
    assert made.custom == {"Mine": "layertap_register_mine"}
    assert made.arena == 4096
    assert "the custom operator Mine" in made.arena_origin


@pytest.mark.slow
def test_an_arena_that_must_be_tried(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("tflite_micro")
    strange = ArenaSize(16, 16, "", unknown=("a kernel that no table has",))
    monkeypatch.setattr("layertap.onchip.predicted", lambda *args, **kwargs: strange)
    made = layertap.generate_firmware(DIGITS, tmp_path / "fw")
    smallest = layertap.memory(DIGITS, "host").arena.minimum
    assert smallest <= made.arena <= with_margin(smallest) + 64
    assert "for want of a kernel that no table has" in made.arena_origin


@pytest.mark.slow
def test_an_arena_that_cannot_be_tried(tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro")
    with pytest.raises(PlanError, match="on this machine") as caught:
        layertap.generate_firmware(model("Mine"), tmp_path / "fw")
    assert "give arena" in caught.value.hint


def test_nothing_depends_on_where_the_model_lies(tmp_path: Path) -> None:
    folders = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        source = tmp_path / name / "net.tflite"
        source.write_bytes(read_whole(DIGITS))
        made = layertap.generate_firmware(source, tmp_path / name / "fw", "zephyr")
        folders.append({path: (made.folder / path).read_bytes() for path in made.files})
    assert folders[0] == folders[1]
