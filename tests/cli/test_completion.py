"""What a shell offers after TAB."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from layertap.arena.boards import board_names
from layertap.cli import main
from layertap.demo import asset

MODEL = str(asset("digits_int8.tflite"))


def offered(*words: str) -> list[str]:
    """For the last word, after the others."""
    completion = BashComplete(main, {}, "layertap", "_LAYERTAP_COMPLETE")
    items = completion.get_completions(list(words[:-1]), words[-1])
    return [item.value if item.type == "plain" else item.type for item in items]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("cap",), ["capture"]),
        (("capture", "di"), ["file"]),
        (("capture", MODEL, "--runtime", "t"), ["tensorflow", "torch", "tflm"]),
        (("capture", MODEL, "-t", "stem_"), ["stem_relu"]),
        (("ls", MODEL, "--taps", "depthwise_r"), ["depthwise_relu"]),
        (("memory", MODEL, "--board", ""), list(board_names())),
    ],
    ids=" ".join,
)
def test_what_is_offered(words: tuple[str, ...], expected: list[str]) -> None:
    assert offered(*words) == expected


def test_taps_of_a_run(tmp_path: Path) -> None:
    import layertap

    with layertap.open(MODEL, "tflm") as model:
        model.capture([[[[0.0]] * 8] * 8], "pool", to=tmp_path / "run.zarr")
    assert offered("show", str(tmp_path / "run.zarr"), "-t", "") == ["pool"]


def test_what_cannot_be_opened_offers_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.tflite").write_bytes(b"nothing")
    assert offered("ls", str(tmp_path / "broken.tflite"), "-t", "") == []
    assert offered("ls", "no such file.tflite", "-t", "") == []
