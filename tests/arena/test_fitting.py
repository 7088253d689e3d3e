from __future__ import annotations

from dataclasses import replace

import pytest

from layertap.arena.boards import Board, Region
from layertap.arena.fitting import verdict


def board(flash: int = 4000, ram: int = 4000, **changes) -> Board:
    regions = (
        Region("flash", "flash", flash),
        Region("ram", "ram", ram),
        Region("bank2", "ram", 1500),
        Region("psram", "ram", 9000, external=True),
        Region("qspi", "flash", 9000, external=True),
    )
    made = Board("Test", "chip", "source", "cortex-m", regions, "flash", "ram", "flash")
    return replace(made, **changes)


def test_it_fits_with_the_margin_of_each_memory(chain) -> None:
    """1,500 bytes of model, 1,312 of activations and 1,000 that persist."""
    found = verdict(chain, board())
    assert found.fits
    assert chain.arena.minimum == 2320
    assert [one.margin for one in found.regions] == [2500, 1680, 1500, 9000, 9000]
    assert found.advice == ()
    assert "the program's size is not known: 2,500 bytes are left for it" in found.notes


def test_exactly_enough_fits_and_a_byte_less_does_not(chain) -> None:
    assert verdict(chain, board(flash=1500, ram=2320)).fits
    assert not verdict(chain, board(flash=1499)).fits
    assert not verdict(chain, board(ram=2319)).fits


def test_reserved_bytes_and_the_program_count(chain) -> None:
    regions = (Region("flash", "flash", 4000, reserved=1000), Region("ram", "ram", 4000))
    found = verdict(chain, board(regions=regions, code=1501))
    assert [one.margin for one in found.regions] == [-1, 1680]
    assert not any("program's size" in note for note in found.notes)


def test_another_memory_is_named_inside_the_chip_first(chain, make_map) -> None:
    small = make_map([("a", 100, 0, 1, 0), ("b", 100, 1, 1, 112)])
    found = verdict(small, board(ram=1000))
    assert found.advice[:2] == (
        "the arena fits into bank2, with 268 bytes to spare",
        "the arena fits into external psram, with 7,768 bytes to spare",
    )
    found = verdict(chain, board(flash=100))
    assert found.advice == ("the model fits into external qspi, with 7,500 bytes to spare",)


def test_what_another_layout_could_do(make_map) -> None:
    """Alive together are at most 1,200 bytes; the layout leaves a gap and takes 1,600."""
    gap = make_map([("a", 400, 0, 1, 0), ("b", 800, 1, 2, 800), ("c", 400, 2, 2, 0)])
    assert (gap.arena.head, gap.arena.lower_bound) == (1600, 1200)
    may = verdict(gap, board(ram=2300)).advice[-1]
    assert may == "another layout may do it: layouts need at least 2,200 bytes, and 2,300 are there"
    cannot = verdict(gap, board(ram=2199)).advice[-1]
    assert cannot.startswith("no other layout is enough: all need at least 2,200 bytes")
    planner = replace(gap, arena=replace(gap.arena, reason="planner", minimum=5008))
    assert verdict(planner, board()).advice[-1].startswith("no other layout helps")


def test_weights_and_arena_in_one_memory_are_added(chain) -> None:
    found = verdict(chain, board(ram=3819, model="ram"))
    assert [one.margin for one in found.regions][1] == -1
    assert [need.what for need in found.regions[1].needs] == ["model", "arena"]


def test_floats_are_pointed_at(make_map) -> None:
    rows = [("a", 400, 0, 1, 0), ("b", 800, 1, 1, 400)]
    floats = make_map(rows, dtype="float32", weights=[("b", 3000)])
    assert "1,200 bytes alive at the peak are float32" in verdict(floats, board(ram=100)).advice[-1]
    assert "3,000 bytes of its weights are float32" in verdict(floats, board(flash=100)).advice[-1]


def test_what_the_verdict_does_not_know_is_said(make_map) -> None:
    unknown = make_map([("a", 16, 0, 0, 0)], unknown=("MY_OP",), target="host")
    notes = verdict(unknown, board()).notes
    assert any("the target host; the board's is cortex-m" in note for note in notes)
    assert "the arena may be larger: MY_OP" in notes


@pytest.mark.parametrize("name", ["flash", "ram"])
def test_a_memory_without_room_at_all(chain, name: str) -> None:
    found = verdict(chain, board(**{name: 0}))
    assert not found.fits
    assert all("-" not in line.split(" bytes")[0] for line in found.advice)
