from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layertap.arena.buffers import UNUSED, Buffer, collisions, extent, lower_bound
from layertap.arena.planners import greedy, order_of_placement


@st.composite
def some_buffers(draw: st.DrawFn, *, fixed: bool = False) -> list[Buffer]:
    """Random lifetimes and sizes; many of equal size, some that nothing uses."""
    found = []
    for _ in range(draw(st.integers(1, 40))):
        first = draw(st.integers(UNUSED, 20))
        last = UNUSED if first == UNUSED else draw(st.integers(first, first + 12))
        size = 16 * draw(st.integers(1, 8))
        at = draw(st.none() | st.integers(0, 20).map(lambda n: 16 * n)) if fixed else None
        found.append(Buffer(size, first, last, at))
    return found


def transcribed(buffers: list[Buffer]) -> list[int]:
    """The rules word by word: a list in order of offsets, walked from its start each time."""
    offsets: dict[int, int] = {}
    placed: list[int] = []
    for i in order_of_placement(buffers):
        wanted, candidate = buffers[i], 0
        if wanted.fixed is not None:
            candidate = wanted.fixed
        else:
            for j in placed:
                if not buffers[j].meets(wanted):
                    continue
                if offsets[j] - candidate >= wanted.size:
                    break
                candidate = max(candidate, offsets[j] + buffers[j].size)
        after = [k for k, j in enumerate(placed) if offsets[j] > candidate]
        placed.insert(after[0] if after else len(placed), i)
        offsets[i] = candidate
    return [offsets[i] for i in range(len(buffers))]


@given(some_buffers())
def test_no_two_live_buffers_share_bytes(buffers: list[Buffer]) -> None:
    offsets = greedy(buffers)
    assert collisions(buffers, offsets) == []
    assert min(offsets) >= 0
    assert extent(buffers, offsets) >= lower_bound(buffers)


@given(some_buffers() | some_buffers(fixed=True))
def test_greedy_follows_the_rules(buffers: list[Buffer]) -> None:
    assert greedy(buffers) == transcribed(buffers)


def test_equal_sizes_are_placed_from_the_last() -> None:
    assert greedy([Buffer(16, 0, 1), Buffer(16, 0, 1), Buffer(32, 1, 1)]) == [48, 32, 0]


def test_a_fixed_buffer_is_placed_first_and_never_moved() -> None:
    assert greedy([Buffer(64, 0, 1), Buffer(16, 0, 1, fixed=32)]) == [48, 32]


def test_nothing_to_place() -> None:
    assert greedy([]) == []
    assert lower_bound([]) == 0


def test_collisions_are_found() -> None:
    buffers = [Buffer(32, 0, 1), Buffer(16, 1, 2), Buffer(16, 2, 3)]
    assert collisions(buffers, [0, 16, 16]) == [(0, 1), (1, 2)]
