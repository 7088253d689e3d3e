from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.core.graph import Graph, TapPoint
from layertap.core.select import canonical, compile_selector, select
from layertap.errors import NoSuchTap, SelectionError

TAPS = (
    TapPoint("x", "input", "", "float32", (None, 4), 0),
    TapPoint("conv2d/relu", "activation", "CONV_2D", "float32", (None, 8), 1, operands=("x",)),
    TapPoint("conv2d_1", "activation", "CONV_2D", "int8", (None, 8), 5),
    TapPoint("odd|name (a&b)", "activation", "ADD", "int8", (None, 8), 2),
    TapPoint("counter", "state", "", "int32", (1,), 6, per="batch"),
    TapPoint("body/add", "activation", "ADD", "int8", (None, 8), 2, subgraph=1),
    TapPoint("dense", "output", "FULLY_CONNECTED", "int8", (None, 10), 3),
    TapPoint("conv2d/kernel", "weight", "", "float32", (3, 3), 4, per="run"),
)
GRAPH = Graph(TAPS)


def names(selector: object) -> list[str]:
    return [tap.name for tap in select(GRAPH, selector)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, ["conv2d/relu", "conv2d_1", "odd|name (a&b)", "counter", "body/add", "dense"]),
        ("*", ["conv2d/relu", "conv2d_1", "odd|name (a&b)", "counter", "body/add", "dense"]),
        ("*conv*", ["conv2d/relu", "conv2d_1"]),
        ("conv2d_1", ["conv2d_1"]),
        ("x", ["x"]),
        ("#4", ["conv2d/kernel"]),
        ("#2", ["odd|name (a&b)"]),
        ("s1/#2", ["body/add"]),
        ("op:conv_2d", ["conv2d/relu", "conv2d_1"]),
        ("op:*conn* | op:add", ["odd|name (a&b)", "body/add", "dense"]),
        ("conv* & ~op:ADD & ~*relu", ["conv2d_1"]),
        ("~conv*", ["odd|name (a&b)", "counter", "body/add", "dense"]),
        ("~(conv* | dense)", ["odd|name (a&b)", "counter", "body/add"]),
        ("odd|name (a&b)", ["odd|name (a&b)"]),
        ('"odd|name (a&b)" | dense', ["odd|name (a&b)", "dense"]),
        ("re:conv2d(_1|/r)", ["conv2d/relu", "conv2d_1"]),
        ('"re:_1|/r" & conv*', ["conv2d/relu", "conv2d_1"]),
        ("kind:weight", ["conv2d/kernel"]),
        ("kind:weight & conv*", ["conv2d/kernel"]),
        ("kind:weight | kind:input", ["x", "conv2d/kernel"]),
        (["dense", "x"], ["x", "dense"]),
        (lambda tap: tap.dtype == "float32", ["x", "conv2d/relu", "conv2d/kernel"]),
        (["x", lambda tap: tap.op == "FULLY_CONNECTED"], ["x", "dense"]),
        (GRAPH["x"], ["x"]),
        ([GRAPH["dense"], GRAPH["odd|name (a&b)"]], ["odd|name (a&b)", "dense"]),
    ],
)
def test_selects(selector: object, expected: list[str]) -> None:
    assert names(selector) == expected


@pytest.mark.parametrize("selector", ["dens", "conv2d_2", "CONV2D_1", ["dense", "conv2d_2"]])
def test_nothing_matches_names_near_ones(selector: object) -> None:
    with pytest.raises(NoSuchTap, match="near names: "):
        names(selector)


def test_a_long_near_name_is_shown_by_its_index() -> None:
    name = ";".join(f"block_{i}/BiasAdd" for i in range(9))
    graph = Graph([TapPoint(name, "activation", "CONV_2D", "int8", (1, 2), 7)])
    with pytest.raises(NoSuchTap, match=r"near names: #7 \(block_0/BiasAdd;.*\.\.\.\)"):
        select(graph, "block_0")


def test_nothing_matches_without_near_names() -> None:
    with pytest.raises(NoSuchTap, match="there are conv2d/relu, conv2d_1, .*, dense"):
        names("zzzzzz")
    with pytest.raises(NoSuchTap, match="empty"):
        names([])
    with pytest.raises(NoSuchTap, match="matches no"):
        names(lambda tap: False)


@pytest.mark.parametrize(
    ("selector", "what"),
    [
        ("kind:weights", "unknown kind"),
        ("re:(", "bad regular expression"),
        ("a |", "missing at position 3"),
        ("", "missing"),
        ("(a | b", r"missing '\)'"),
        ("a ) b", "unexpected"),
        ('"dense', "closing quote"),
        ("& a", "missing"),
    ],
)
def test_bad_syntax_says_where(selector: str, what: str) -> None:
    with pytest.raises(SelectionError, match=what):
        names(selector)


def test_what_is_no_selector() -> None:
    for selector in (3, [3], ["dense", 3]):
        with pytest.raises(SelectionError, match="3 is no selector"):
            names(selector)
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(SelectionError, match="is no selector"):
        names(endless)


@pytest.mark.parametrize(
    ("selector", "what"),
    [
        ("(" * 10_000 + "dense" + ")" * 10_000, "inside one another"),
        ("~" * 10_000 + "dense", "inside one another"),
        ("re:" + "(" * 10_000 + ")" * 10_000, "inside one another"),
        ("re:d{99999999999}", "bad regular expression"),
        ("a |" * 10_000, "missing"),
        ("zz" * 10_000, "no tap point matches"),
    ],
)
def test_no_text_is_too_much(selector: str, what: str) -> None:
    with pytest.raises(SelectionError, match=what) as caught:
        names(selector)
    assert len(str(caught.value)) < 400


def test_what_people_write_is_not_too_deep() -> None:
    assert names("(" * 40 + "dense" + ")" * 40) == ["dense"]
    assert names("~" * 40 + "dense & op:FULLY*") == ["dense"]
    assert names(" | ".join(["(dense)"] * 500)) == ["dense"]


def test_what_else_may_help_is_said() -> None:
    for selector in ("zzzz", "conv2d_2", ["dense", "zzzz"], lambda tap: False):
        with pytest.raises(NoSuchTap) as caught:
            select(GRAPH, selector, hint="or look elsewhere")  # type: ignore[arg-type]
        assert caught.value.hint.endswith("or look elsewhere")


atoms = st.sampled_from(["conv*", "op:add", "dense", "#5", "*", "re:conv", "~dense", "kind:state"])


@given(atoms, atoms)
def test_set_algebra(left: str, right: str) -> None:
    def chosen(text: str) -> set[str]:
        predicate = compile_selector(text)
        return {tap.name for tap in GRAPH if predicate(tap)}

    quote = '"{}"'.format
    a, b = (quote(s) if s.startswith("re:") else s for s in (left, right))
    if "kind:" in left + right:
        union, one, two = f"{a}|{b}", f"{a}|kind:state&~*", f"{b}|kind:state&~*"
        assert chosen(union) == chosen(one) | chosen(two)
        return
    assert chosen(f"{a}|{b}") == chosen(left) | chosen(right)
    assert chosen(f"{a}&{b}") == chosen(left) & chosen(right)
    assert chosen(f"~({a}|{b})") == chosen(f"~({a})&~({b})")


@given(st.text(max_size=30))
def test_any_text_is_a_selector_or_one_clear_error(text: str) -> None:
    try:
        names(text)
    except SelectionError as error:
        assert error.hint


@given(st.text(min_size=1, max_size=30))
def test_an_exact_name_always_selects_itself(name: str) -> None:
    graph = Graph([TapPoint(name, "weight", "", "int8", (1,), 0)])
    assert select(graph, name)[0].name == name


def test_names_that_hold_operators_are_names_where_taps_appear_one_by_one() -> None:
    for selector in ("odd|name (a&b)", ["odd|name (a&b)"]):
        chosen = compile_selector(canonical(GRAPH, selector))
        assert [tap.name for tap in GRAPH if chosen(tap)] == ["odd|name (a&b)"]
    assert canonical(GRAPH, "conv*") == "conv*"
