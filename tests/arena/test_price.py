"""Prices and passes against the memory map of the model with its taps as outputs."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.arena.mapping import memory_map, tapped
from layertap.arena.passes import passes
from layertap.arena.price import TapCosts, prices
from layertap.arena.target import load_target
from layertap.errors import ArenaExceeded, Untappable
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.edit import OFFLINE_PLAN
from layertap.tflite.model import TfliteModel, parse

HOST, CORTEX = load_target("host", "8f6596d"), load_target("cortex-m", "90b983c")


def chain(sizes: list[int], metadata: dict[str, bytes] | None = None) -> TfliteModel:
    """Tensors of these many floats; tensor i + 1 is computed from tensor i."""
    tensors = [TensorSpec(f"t{i}", (1, size)) for i, size in enumerate(sizes)]
    steps = [OperatorSpec("RELU", [i], [i + 1]) for i in range(len(sizes) - 1)]
    return parse(
        write_tflite(SubgraphSpec(tensors, [0], [len(sizes) - 1], steps), metadata=metadata)
    )


def branching(sizes: list[int], parents: list[int]) -> TfliteModel:
    """Each tensor is the sum of the one before and of an earlier one, some of them quantized."""
    tensors = [
        TensorSpec(f"t{i}", (1, size), scales=[0.5] * (i % 3), zero_points=[0] * (i % 3))
        for i, size in enumerate(sizes)
    ]
    steps = [OperatorSpec("ADD", [i, parents[i] % (i + 1)], [i + 1]) for i in range(len(sizes) - 1)]
    return parse(write_tflite(SubgraphSpec(tensors, [0], [len(sizes) - 1], steps)))


sizes = st.lists(st.integers(1, 300), min_size=2, max_size=14)
parents = st.lists(st.integers(0, 20), min_size=14, max_size=14)


@pytest.mark.slow
@given(sizes, parents, st.sets(st.integers(1, 13)))
@settings(max_examples=60)
def test_costs_are_those_of_the_map_with_taps(
    sizes: list[int], parents: list[int], taps: set[int]
) -> None:
    model = branching(sizes, parents)
    chosen = sorted(tap for tap in taps if tap < len(sizes))
    for target in (HOST, CORTEX):
        costs = TapCosts(model, target)
        arena = memory_map(tapped(model, chosen), target).arena
        assert costs.head(chosen) == arena.head
        assert costs.tail(chosen) == arena.tail
        assert costs.minimum(chosen) == arena.minimum


def test_a_model_with_a_layout() -> None:
    """The tapped tensor leaves its place, and the planner finds it another one."""
    layout = struct.pack("<7i", 1, 1, 4, 0, 1024, 0, 1024)
    model = chain([8, 16, 8, 4], metadata={OFFLINE_PLAN: layout})
    costs = TapCosts(model, HOST)
    for price in prices(model, HOST):
        arena = memory_map(tapped(model, [price.index]), HOST).arena
        assert price.head == arena.head - costs.map.arena.head
        assert price.minimum == arena.minimum - costs.map.arena.minimum
    found = passes(model, HOST, [1, 2, 3], costs.minimum([1, 2]))
    assert [i for group in found.groups for i in group] == [1, 2, 3]


def test_prices_have_a_row_per_tensor_that_is_computed() -> None:
    found = prices(chain([256, 512, 256, 64]), CORTEX)
    assert [(p.name, p.index, p.op, p.bytes) for p in found] == [
        ("t1", 1, "RELU", 2048),
        ("t2", 2, "RELU", 1024),
        ("t3", 3, "RELU", 256),
    ]
    assert (found[-1].head, found[-1].tail, found[-1].minimum) == (0, 0, 0)
    assert found[0].tail > 0
    assert found[0].head == 256


@pytest.mark.slow
@given(sizes, parents, st.integers(0, 2000), st.booleans())
@settings(max_examples=60)
def test_passes_fit_and_hold_every_tap_once(
    sizes: list[int], parents: list[int], more: int, chip: bool
) -> None:
    model, target = branching(sizes, parents), CORTEX if chip else HOST
    costs = TapCosts(model, target)
    wanted = list(range(1, len(sizes)))
    arena = max(costs.minimum([i]) for i in wanted) + more
    found = passes(model, target, wanted, arena)
    assert sorted(i for group in found.groups for i in group) == wanted
    assert all(needed <= arena for needed in found.needs)
    for group, needed in zip(found.groups, found.needs, strict=True):
        assert memory_map(tapped(model, group), target).arena.minimum == needed
    assert found.exact
    assert found.at_least <= len(found.groups)
    assert found.fewest or len(wanted) > 10
    assert found == passes(model, target, wanted, arena)


@given(sizes, parents, st.integers(0, 2000))
@settings(max_examples=60)
def test_limits_refuse_nothing_that_fits(sizes: list[int], parents: list[int], more: int) -> None:
    model = branching(sizes, parents)
    costs = TapCosts(model, HOST)
    taps = list(range(1, len(sizes)))
    arena = costs.map.arena.minimum + more
    limits = costs.limits(taps, arena)
    for i in range(len(taps)):
        for group in (taps[: i + 1], taps[i:], taps[i::2]):
            if costs.minimum(group) <= arena:
                assert all(limit.spare(group) >= 0 for limit in limits)


def test_a_tap_that_fits_in_no_pass_is_named_with_what_it_lacks() -> None:
    model = chain([64, 4096, 4096, 64, 64])
    costs = TapCosts(model, HOST)
    arena = costs.map.arena.minimum
    assert costs.minimum([4]) == arena
    with pytest.raises(ArenaExceeded, match=r"'t1' fits in no pass") as caught:
        passes(model, HOST, [1, 2, 4], arena)
    assert caught.value.needed == costs.minimum([1])
    assert caught.value.available == arena
    assert f"{caught.value.needed - arena:,} more" in caught.value.message
    assert "'t2'" in caught.value.hint


def test_an_arena_too_small_without_taps() -> None:
    with pytest.raises(ArenaExceeded, match="the model, without any tap") as caught:
        passes(chain([64, 64]), HOST, [], 96)
    assert caught.value.needed == memory_map(chain([64, 64]), HOST).arena.minimum


def test_no_taps_are_one_pass() -> None:
    found = passes(chain([64, 64]), HOST, [], 1 << 20)
    assert (found.groups, found.at_least) == (((),), 1)


def test_what_cannot_be_an_output_is_refused() -> None:
    tensors = [TensorSpec("x", (1, 4)), TensorSpec("y", (1, 4)), TensorSpec("loose", (1, 4))]
    model = parse(write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("RELU", [0], [1])])))
    with pytest.raises(Untappable, match="loose"):
        passes(model, HOST, [1, 2], 1 << 20)


def test_most_taps_of_person_detect_cost_nothing_in_the_head(shared: Path) -> None:
    model = parse((shared / "models/tflm/person_detect.tflite").read_bytes())
    found = [p for p in prices(model, HOST) if p.index not in model.subgraphs[0].outputs]
    assert (len(found), sum(p.head == 0 for p in found)) == (30, 26)


@pytest.mark.slow
def test_every_shared_model(shared: Path) -> None:
    for path in sorted(shared.glob("models/*/*.tflite")):
        model = parse(path.read_bytes())
        for target in (HOST, CORTEX):
            costs = TapCosts(model, target)
            base = costs.map.arena
            found = prices(model, target)
            for price in found:
                arena = memory_map(tapped(model, [price.index]), target).arena
                grown = (arena.head - base.head, arena.tail - base.tail)
                assert (price.head, price.tail) == grown, (path.name, price)
                assert price.minimum == arena.minimum - base.minimum, (path.name, price)
            wanted = [price.index for price in found]
            least = max(costs.minimum([i]) for i in wanted)
            whole = costs.minimum(wanted)
            for room in (least, (3 * least + whole) // 4, (least + whole) // 2, whole):
                split = passes(model, target, wanted, room)
                assert sorted(i for g in split.groups for i in g) == sorted(wanted)
                # One more than the bound was the most that was ever seen on these.
                assert len(split.groups) <= split.at_least + 1, (path.name, room)
            assert passes(model, target, wanted, whole).fewest


@pytest.mark.slow
def test_many_tensors_take_seconds() -> None:
    for length in (31, 1000):
        model = chain([64 + i % 7 for i in range(length)])
        started = time.process_time()
        found = prices(model, CORTEX)
        assert len(found) == length - 1
        assert time.process_time() - started < 20
        wanted = [price.index for price in found]
        arena = TapCosts(model, CORTEX).minimum(wanted[::3])
        started = time.process_time()
        split = passes(model, CORTEX, wanted, arena)
        assert len(split.groups) <= split.at_least + 1
        assert time.process_time() - started < 20
