"""Array names for tap names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layertap.store.naming import is_node_name, node_names
from layertap.testing.store import NAMES


@given(st.lists(st.text(st.characters(), max_size=300), unique=True, max_size=20))
def test_names_are_safe_and_unique_regardless_of_case(names: list[str]) -> None:
    nodes = node_names(names)
    assert len({node.lower() for node in nodes}) == len(names)
    assert all(is_node_name(node) and len(node) < 180 for node in nodes)
    assert not any(node.startswith(("__", ".")) or node.endswith(".") for node in nodes)


def test_plain_names_stay_as_they_are() -> None:
    plain = ["conv2d_1", "layer1.0", "dense@1", "Add-2"]
    assert node_names(plain) == plain


def test_odd_names() -> None:
    found = dict(zip(NAMES, node_names(NAMES), strict=True))
    assert found["a/b"] == "a_b"
    assert found["a_b"] == "a_b~2"
    assert found["A_B"] == "A_B~4"  # "a b" came before
    assert found["__x"] == "tap__x"
    assert found["sample"] == "sample~2"
    assert found["NUL"] == "tapNUL"
    assert found["n" * 300][:100] == found["n" * 301][:100]
    assert found["n" * 300] != found["n" * 301]


def test_names_of_unknown_origin() -> None:
    for name in ("a", "a~samples", "conv.1", "x@2"):
        assert is_node_name(name)
    for name in ("", ".", "..", "a/b", "a\\b", "SAMPLE", "a\0", "x" * 241, 3, None):
        assert not is_node_name(name)
