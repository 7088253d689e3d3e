from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.core.graph import Graph, TapPoint, table_row
from layertap.core.units import format_bytes, parse_bytes

X = TapPoint("x", "input", "", "float32", (None, 4), 0)
Y = TapPoint("y", "activation", "ADD", "int8", (None, 2, 3), 7, subgraph=2, operands=("x", "x"))
Z = TapPoint("z", "output", "MUL", "bfloat16", None, 1, operands=("y", "x", "elsewhere"))


def test_edges() -> None:
    graph = Graph([X, Y, Z])
    assert graph.consumers(X) == (Y, Z)
    assert graph.consumers(Z) == ()
    assert graph.producers(Z) == (Y, X)


def test_names_must_be_unique() -> None:
    with pytest.raises(ValueError, match="unique"):
        Graph([X, X])


def test_bytes_of_a_row() -> None:
    assert (X.row_bytes, Y.row_bytes, Z.row_bytes) == (16, 6, None)
    assert TapPoint("s", "activation", "", "bfloat16", (2, 3), 0, per="batch").row_bytes == 12
    assert TapPoint("r", "activation", "", "resource", (), 0, per="batch").row_bytes is None
    assert TapPoint("d", "activation", "", "int8", (None, None), 0).row_bytes is None


def test_native_index() -> None:
    assert (X.native, Y.native) == ("#0", "s2/#7")


def test_prints_as_a_table() -> None:
    lines = str(Graph([X, Y, Z])).splitlines()
    assert lines[0].split() == ["name", "kind", "op", "dtype", "shape", "bytes", "quantization"]
    assert lines[2].split() == ["y", "activation", "ADD", "int8", "?x2x3", "6", "B"]


@given(st.integers(0, 10**15))
def test_plain_counts_are_bytes(count: int) -> None:
    assert parse_bytes(str(count)) == parse_bytes(count) == count
    assert format_bytes(count).split()[1] in ("B", "KiB", "MiB", "GiB", "TiB")


@pytest.mark.parametrize(
    ("text", "count"),
    [("96K", 96_000), ("1.5 KiB", 1536), ("2GB", 2 * 10**9), ("512MiB", 512 << 20), ("7 B", 7)],
)
def test_sizes(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [("96K", 96 << 10), ("96KiB", 96 << 10), ("1.5kb", 1536), ("2M", 2 << 20), ("7 B", 7)],
)
def test_sizes_of_chips(text: str, count: int) -> None:
    assert parse_bytes(text, binary=True) == count


@pytest.mark.parametrize("text", ["", "lots", "-1", "2XB", "1e3", "i"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


def test_further_names() -> None:
    out = replace(Y, also=("logits", "x"))
    graph = Graph([X, out, Z])
    assert graph["logits"] is out
    assert "logits" in graph
    assert graph.canonical("logits") == "y"
    # A tap's own name comes first.
    assert graph["x"] is X
    assert (graph.canonical("x"), graph.canonical("nobody")) == ("x", "nobody")
    assert "nobody" not in graph
    assert table_row(out)[:2] == ("y", "activation (logits, x)")
