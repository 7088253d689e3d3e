from __future__ import annotations

import pytest

from layertap.arena.picture.colours import FAMILIES, colour, family


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("INPUT", "input"),
        ("CONV_2D", "convolution"),
        ("DEPTHWISE_CONV_2D", "depthwise"),
        ("TRANSPOSE_CONV", "convolution"),
        ("TRANSPOSE", "shape"),
        ("FULLY_CONNECTED", "matrix"),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "recurrent"),
        ("AVERAGE_POOL_2D", "reduction"),
        ("ADD", "element-wise"),
        ("MyCustomOp", "element-wise"),
        ("", "element-wise"),
    ],
)
def test_families(op: str, expected: str) -> None:
    assert family(op) == expected
    assert colour(op) == FAMILIES[expected][0]


def test_every_family_has_a_colour_of_its_own_that_dark_text_reads_on() -> None:
    colours = [fill for fill, _ in FAMILIES.values()]
    assert len(set(colours)) == len(colours)
    for fill in colours:
        red, green, blue = (int(fill[i : i + 2], 16) / 255 for i in (1, 3, 5))
        assert 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.3
