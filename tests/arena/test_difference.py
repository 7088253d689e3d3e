from __future__ import annotations

import numpy as np

from layertap.arena.difference import difference
from layertap.arena.mapping import memory_map
from layertap.arena.memory_map import MemoryMap
from layertap.arena.target import load_target
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import parse

ROWS = [("in", 400, 0, 1, 0), ("b", 800, 1, 2, 400), ("c", 160, 2, 2, 0)]
SMALL = [("in", 100, 0, 1, 0), ("b", 200, 1, 2, 112), ("c", 160, 2, 2, 320)]


def test_nothing_changes_against_itself(chain) -> None:
    found = difference(chain, chain)
    assert found.same
    assert found.layers == found.tensors == ()
    assert found.peak_before == found.peak_after


def test_totals_and_what_changed_by_size(make_map) -> None:
    before = make_map(ROWS, weights=[("b", 3000), ("c", 100)])
    after = make_map(SMALL, weights=[("b", 750), ("c", 110)], tail=1200)
    found = difference(before, after)
    assert not found.same
    totals = {change.name: change.growth for change in found.arena}
    assert totals["activations"] == 480 - 1200
    assert totals["persistent"] == 200
    assert totals["smallest arena"] == after.arena.minimum - before.arena.minimum
    assert [(c.name, c.growth) for c in found.tensors] == [("b", -592), ("in", -288)]
    assert [(c.name, c.growth) for c in found.layers] == [("b", -2250), ("c", 10)]
    assert [(c.name, c.growth) for c in found.sections] == [
        ("tensors", 0),
        ("kernels", 200),
    ]
    assert found.flash[0].growth == -2240


def test_renamed_tensors_are_matched_by_their_operator_in_order(make_map) -> None:
    renamed = [("in", 100, 0, 1, 0), ("b_int8", 200, 1, 2, 112), ("c_int8", 16, 2, 2, 320)]
    found = difference(make_map(ROWS), make_map(renamed))
    changes = {change.name: change for change in found.tensors}
    assert (changes["b"].how, changes["b"].renamed) == ("position", "b_int8")
    assert (changes["c"].how, changes["c"].renamed) == ("position", "c_int8")
    assert changes["in"].how == "name"


def test_what_is_new_and_what_is_gone(make_map) -> None:
    longer = [*ROWS, ("d", 48, 2, 2, 160)]
    new = difference(make_map(ROWS), make_map(longer)).tensors
    assert [(c.name, c.how, c.before, c.after) for c in new] == [("d", "new", None, 48)]
    gone = difference(make_map(longer), make_map(ROWS)).tensors
    assert [(c.name, c.how, c.growth) for c in gone] == [("d", "gone", -48)]


def test_the_same_size_gone_and_new_is_no_sameness(make_map) -> None:
    other = make_map([*ROWS[:2], ("x", 160, 2, 2, 0)], op="ADD")
    found = difference(make_map(ROWS), other)
    assert {(c.name, c.how) for c in found.tensors} == {("c", "gone"), ("x", "new")}
    assert not found.same


def test_layers_of_one_name() -> None:
    """Operators without a result are called after their place, which is taken in each subgraph."""

    def assigning(values: int) -> SubgraphSpec:
        given = TensorSpec("v", (1, values), data=np.ones((1, values), np.float32))
        tensors = [TensorSpec("x", (1, 4)), TensorSpec("h", (1,), "resource"), given]
        assign = OperatorSpec("ASSIGN_VARIABLE", [1, 2], [])
        handle = OperatorSpec("VAR_HANDLE", [], [1], {0: "", 1: "a"})
        return SubgraphSpec(tensors, [0], [0], [handle, assign])

    def mapped(first: int, second: int) -> MemoryMap:
        data = write_tflite(assigning(first), assigning(second))
        return memory_map(parse(data), load_target("cortex-m"))

    before = mapped(4, 8)
    assert [layer.name for layer in before.flash.layers] == ["assign_variable_1"] * 2
    assert difference(before, before).same
    (change,) = difference(before, mapped(4, 16)).layers
    assert (change.before, change.after, change.how) == (32, 64, "name")


def test_the_peak_moves(make_map) -> None:
    late = [("in", 16, 0, 1, 0), ("b", 32, 1, 2, 16), ("c", 3200, 2, 2, 48)]
    found = difference(make_map(ROWS), make_map(late))
    assert found.peak_before is not None
    assert found.peak_after is not None
    assert (found.peak_before.step.operator, found.peak_after.step.operator) == (0, 1)
