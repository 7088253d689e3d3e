"""Foreign text in generated files."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.firmware.generate.array import array_body
from layertap.firmware.generate.text import c_string, comment, filled


def test_placeholders() -> None:
    assert filled("a @one@ b @two_more@ c@d.e", {"one": "1", "two_more": "@one@"}) == (
        "a 1 b @one@ c@d.e"
    )
    with pytest.raises(KeyError, match="three"):
        filled("@three@", {})


@given(st.text(max_size=300))
def test_comments_stay_on_their_line(text: str) -> None:
    made = comment(text)
    assert made.isprintable()
    assert len(made) <= 100 + 3 * made.count("(at)")
    assert "\\" not in made
    assert "*/" not in made
    assert "@" not in made


@given(st.binary(max_size=60))
def test_strings_mean_their_bytes(data: bytes) -> None:
    text = c_string(data)
    assert "??" not in text  # would begin a trigraph
    # Python reads these literals as C does: octal digits, at most three of them.
    assert ast.literal_eval(f"b{text}") == data


@given(st.binary(max_size=100))
def test_arrays_hold_their_bytes(data: bytes) -> None:
    text = array_body(data)
    assert bytes(int(word, 16) for word in text.replace("\n", "").split(",")[:-1]) == data
    assert max(map(len, text.split("\n"))) <= 82
