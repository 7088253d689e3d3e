"""How large an arena is."""

from __future__ import annotations

import pytest

import layertap
from layertap.arena.target import load_target
from layertap.demo import asset
from layertap.errors import PlanError
from layertap.firmware.generate.arena_size import ArenaSize, given, predicted, with_margin
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import TfliteModel, parse

DIGITS = asset("digits_int8.tflite").read_bytes()


@pytest.fixture
def model() -> TfliteModel:
    return parse(DIGITS)


def minimum(target: str) -> int:
    newest = load_target("cortex-m").commit
    return layertap.memory(DIGITS, target, version=newest, recording=False).arena.minimum


def test_the_largest_of_the_chips_and_the_host_apart(model: TfliteModel) -> None:
    both = predicted(model, ("cortex-m", "ilp32"), ())
    assert both.narrow == max(minimum("cortex-m"), minimum("ilp32"))
    assert both.wide == minimum("host") > both.narrow
    assert both.unknown == ()


def test_other_kernels_get_a_margin(model: TfliteModel) -> None:
    plain = predicted(model, ("cortex-m",), ())
    more = predicted(model, ("cortex-m",), ("cmsis_nn", "esp_nn"))
    assert (more.narrow, more.wide) == (with_margin(plain.narrow), with_margin(plain.wide))
    assert "kernels of the chip" in more.origin
    assert plain.guessed == ()
    own = "ADD, CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, MAX_POOL_2D, SOFTMAX"
    assert more.guessed == (
        f"what the cmsis_nn kernels of {own} ask for",
        f"what the esp_nn kernels of {own} ask for",
    )


def test_margins() -> None:
    assert with_margin(1000) == 3056  # 1000 + 2048, up to a multiple of 16
    assert with_margin(160_000) == 180_000


def test_what_is_not_known_is_named() -> None:
    tensors = [TensorSpec("x", (1, 4)), TensorSpec("y", (1, 4))]
    own = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("Mine", [0], [1])]))
    assert "Mine" in predicted(parse(own), ("ilp32",), ()).unknown[0]


def test_given() -> None:
    found = ArenaSize(1000, 2000, "", ("one thing",))
    assert given(512, found) == ArenaSize(
        512, 512, "as given; the memory map says 1,000, and lacks one thing"
    )
    for size in (0, -1, 1 << 31):
        with pytest.raises(PlanError, match="is not possible"):
            given(size, found)
