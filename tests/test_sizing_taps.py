"""Prices and passes in the Python interface."""

from __future__ import annotations

import pytest

import layertap
from layertap.demo import asset
from layertap.errors import ArenaExceeded, NoSuchTap, PlanError

MODEL = asset("digits_int8.tflite")


def test_prices() -> None:
    base = layertap.memory(MODEL).arena
    for price in layertap.prices(MODEL):
        arena = layertap.memory(MODEL, taps=price.name).arena
        assert (price.head, price.tail) == (arena.head - base.head, arena.tail - base.tail)
        assert price.minimum == arena.minimum - base.minimum
    assert [p.name for p in layertap.prices(MODEL.read_bytes(), "pool", "cortex-m")] == ["pool"]
    with pytest.raises(NoSuchTap):
        layertap.prices(MODEL, "poool")


def test_passes() -> None:
    arena = layertap.memory(MODEL, taps="*").arena.minimum
    whole = layertap.passes(MODEL, "*", arena)
    assert len(whole.groups) == 1
    assert whole.fewest
    assert len(layertap.passes(MODEL, "*", arena - 16).groups) > 1
    with pytest.raises(ArenaExceeded):
        layertap.passes(MODEL, "*", "1K")
    with pytest.raises(PlanError, match="not a size"):
        layertap.passes(MODEL, "*", "little")


def test_they_are_those_that_a_capture_takes() -> None:
    arena = layertap.memory(MODEL, taps="*").arena.minimum - 16
    found = layertap.passes(MODEL, "*", arena)
    with layertap.open(MODEL, runtime="tflm", arena=arena) as model:
        plan = model.plan("*")
    assert [tuple(tap.name for tap in group) for group in plan.passes] == list(found.taps)
