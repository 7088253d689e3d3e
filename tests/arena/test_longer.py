from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from layertap.arena.buffers import Buffer, extent
from layertap.arena.longer import LongerLives
from layertap.arena.planners import greedy

END = 12

lives = st.tuples(st.integers(0, END), st.integers(0, END)).map(sorted)
buffers = st.builds(
    lambda size, life, fixed: Buffer(16 * size, life[0], life[1], fixed),
    st.integers(1, 6),
    lives,
    st.none(),
)
some_fixed = st.builds(
    lambda buffer, fixed: replace(buffer, fixed=fixed),
    buffers,
    st.sampled_from([None, None, 0, 64]),
)


@given(
    st.lists(buffers, min_size=1, max_size=60) | st.lists(some_fixed, min_size=1, max_size=9),
    st.data(),
)
def test_it_is_what_planning_anew_gives(given: list[Buffer], data: st.DataObject) -> None:
    longer = data.draw(st.lists(st.integers(0, len(given) - 1), max_size=4))
    changed = [
        replace(buffer, last=END, fixed=None) if i in longer else buffer
        for i, buffer in enumerate(given)
    ]
    lasting = LongerLives(given, END)
    assert lasting.head_with(longer) == extent(changed, greedy(changed))


def test_a_buffer_that_lives_to_the_end_already_costs_nothing() -> None:
    lasting = LongerLives([Buffer(16, 0, 2), Buffer(32, 1, END)], END)
    assert lasting.head_with([1]) == lasting.head == 48


def test_nothing_touches_some_buffers() -> None:
    lasting = LongerLives([Buffer(16, -1, -1), Buffer(32, 1, 2)], END)
    assert lasting.head_with([]) == 32


def test_no_buffers() -> None:
    assert LongerLives([], END).head_with([]) == 0
