"""The platforms."""

from __future__ import annotations

from importlib.resources import files

import pytest

from layertap.arena.target import names
from layertap.errors import LayertapError
from layertap.firmware.generate.platforms import EVERY, PLATFORMS, platform_named, templates
from layertap.firmware.generate.project import MAINS, STEPS


def test_each_has_its_templates_and_no_folder_is_left_over() -> None:
    root = files("layertap.firmware.generate") / "platforms"
    folders = {entry.name for entry in root.iterdir() if entry.is_dir()}
    assert folders == {EVERY, MAINS, *(p.templates for p in PLATFORMS.values())}


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=lambda p: p.name)
def test_five_steps_and_known_chips(platform) -> None:
    steps = dict(templates(platform.templates))[STEPS]
    numbers = [line[0] for line in steps.splitlines() if line[:1].isdigit() and line[1:2] == "."]
    assert numbers == list("12345")
    assert set(platform.targets) <= set(names())


def test_by_name() -> None:
    assert platform_named("pico").name == "pico"
    with pytest.raises(LayertapError, match="'espidf'") as caught:
        platform_named("espidf")
    assert "esp-idf" in caught.value.hint
    with pytest.raises(LayertapError) as caught:
        platform_named("")
    assert "generic" in caught.value.hint
