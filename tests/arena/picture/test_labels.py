from __future__ import annotations

from layertap.arena.picture.labels import Names, cut


def test_the_telling_end_of_a_path() -> None:
    names = Names(["net/conv_1/Relu", "net/conv_2/Relu", "net/pool"])
    assert names.fitted("net/conv_1/Relu", 40) == "net/conv_1/Relu"
    assert names.fitted("net/conv_1/Relu", 12) == "conv_1/Relu"
    assert names.fitted("net/conv_1/Relu", 8) == "conv_1"
    assert names.fitted("net/pool", 5) == "pool"


def test_a_number_instead_of_a_stump() -> None:
    names = Names(["net/conv_one", "net/conv_two"])
    assert names.fitted("net/conv_one", 5, "#7") == "#7"
    assert names.fitted("net/conv_one", 5) == "co…ne"


def test_of_fused_names_the_first() -> None:
    names = Names(["a/Relu;a/Bias;a/Conv", "b/Relu;b/Bias"])
    assert names.fitted("a/Relu;a/Bias;a/Conv", 30) == "a/Relu"
    assert Names([";x"]).fitted(";x", 9) == ";x"


def test_cut_keeps_both_ends() -> None:
    assert cut("abcdefghij", 5) == "ab…ij"
    assert cut("abc", 3) == "abc"
    assert cut("abcdefghij", 1) == "…"
