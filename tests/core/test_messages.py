"""The line that matters, of messages as the frameworks write them."""

from __future__ import annotations

import pytest

from layertap.core.messages import abridged, brief, listed

IN_A_GRAPH = """Graph execution error:

Detected at node g_0 defined at (most recent call last):
  File "model.py", line 4, in <module>

indices[0,0] = 99 is not in [0, 10)
\t [[{{node g_0}}]] [Op:__inference_compute_67]"""

IN_A_LAYER = """Exception encountered when calling Embedding.call().

\x1b[1mindex out of range in self\x1b[0m

Arguments received by Embedding.call():"""

CAUSE = "Exception encountered when calling Embedding.call(): index out of range in self"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  shapes differ\nat line 3", "shapes differ"),
        ("in user code:\n\n  File 'a.py'\n\n  ValueError: no", "ValueError: no"),
        (IN_A_GRAPH, "indices[0,0] = 99 is not in [0, 10)"),
        (IN_A_LAYER, CAUSE),
        (f"Could not infer a shape. Error encountered:\n\n{IN_A_LAYER}", CAUSE),
        ("x" * 500, "x" * 300 + "..."),
        ("", "ValueError"),
    ],
)
def test_what_is_wrong(text: str, line: str) -> None:
    assert brief(ValueError(text)) == line


def test_long_texts_are_abridged() -> None:
    assert abridged("short") == "short"
    assert abridged("x" * 80) == "x" * 80
    assert abridged("x" * 81) == "x" * 77 + "..."
    assert len(abridged("x" * 10_000, 20)) == 20


def test_many_names_are_counted() -> None:
    assert listed([]) == ""
    assert listed("abc") == "a, b, c"
    assert listed("abcdefg") == "a, b, c, d, e, f, g"  # one more is as short as to say so
    assert listed("abcdefgh") == "a, b, c, d, e, f, and 2 more"
    assert listed(["x"] * 5000, most=2) == "x, x, and 4,998 more"
    assert len(listed(["x" * 1000] * 1000)) < 330
