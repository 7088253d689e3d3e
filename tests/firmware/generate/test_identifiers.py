"""Names as C++ can write them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from layertap.firmware.generate.identifiers import LONGEST, identifier, identifiers


def test_readable() -> None:
    assert identifier("model/Conv2D_1/BiasAdd;relu") == "model_conv2d_1_biasadd_relu"
    assert identifier("__x__") == "x"
    assert identifier("") == identifier("é/ü") == "unnamed"


@given(st.lists(st.text(max_size=80), max_size=20))
def test_always_valid_and_unique(names: list[str]) -> None:
    made = identifiers(names)
    assert len(set(made)) == len(names)
    for name in made:
        assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name)
        assert len(name) <= LONGEST + 24


def test_repetitions_are_numbered_by_position_and_the_rest_keeps_its_name() -> None:
    assert identifiers(["a/b", "c", "a.b", "a_b_2"]) == ["a_b_0", "c", "a_b_2_2", "a_b_2"]
