from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layertap.arena.buffers import Buffer, collisions, extent, lower_bound
from layertap.arena.packing import Problem, Reuse, count_pairs, first_fit, pack
from layertap.arena.planners import greedy

SUBOPTIMAL = [Buffer(144, 0, 1), Buffer(128, 1, 2), Buffer(112, 2, 3), Buffer(144, 3, 3)]


@st.composite
def some_buffers(draw: st.DrawFn) -> list[Buffer]:
    found = []
    for _ in range(draw(st.integers(1, 16))):
        first = draw(st.integers(0, 10))
        last = draw(st.integers(first, first + 6))
        found.append(Buffer(16 * draw(st.integers(1, 12)), first, last))
    return found


@st.composite
def chained(draw: st.DrawFn) -> Problem:
    """Buffers, and operators that may write over an operand: the one dies in the scope in which
    the other is born."""
    buffers = draw(some_buffers())
    reuses = []
    taken: set[int] = set()
    for i, operand in enumerate(buffers):
        for j, result in enumerate(buffers):
            meets = operand.last == result.first and operand.first < result.first and i != j
            if meets and operand.last not in taken and draw(st.booleans()):
                taken.add(operand.last)
                same = result.size <= operand.size and draw(st.booleans())
                distance = draw(st.none() | st.integers(0, result.size))
                reuses.append(Reuse(i, j, operand.last, same, distance))
    online = draw(st.sets(st.integers(0, len(buffers) - 1), max_size=3))
    return Problem(buffers, reuses, online)


def brute_clashes(problem: Problem, offsets: list[int]) -> list[tuple[int, int]]:
    """Pairs that overlap in time and bytes and are not allowed to, by the definition."""
    allowed = []
    for reuse in problem.reuses:
        gap = offsets[reuse.input] - offsets[reuse.output]
        near = reuse.distance is not None and gap >= reuse.distance
        if near or (reuse.same and gap == 0):
            allowed.append({reuse.input, reuse.output})
    return [pair for pair in collisions(problem.buffers, offsets) if set(pair) not in allowed]


@given(some_buffers())
def test_never_above_the_greedy_planner_nor_below_the_bound(buffers: list[Buffer]) -> None:
    packed = pack(Problem(buffers), tries=20)
    assert collisions(buffers, packed.offsets) == []
    assert packed.head == extent(buffers, packed.offsets)
    assert lower_bound(buffers) == packed.bound <= packed.head
    assert packed.head <= extent(buffers, greedy(buffers))


@given(chained())
def test_only_declared_pairs_share_bytes_while_both_are_alive(problem: Problem) -> None:
    packed = pack(problem, tries=20)
    offsets = list(packed.offsets)
    assert min(offsets) >= 0
    assert brute_clashes(problem, offsets) == problem.clashes(offsets) == []
    shared = {(reuse.input, reuse.output) for reuse in problem.shared(offsets)}
    overlapping = collisions(problem.buffers, offsets)
    assert {frozenset(pair) for pair in shared} == {frozenset(pair) for pair in overlapping}
    # The interpreter's own planner adds the rest without touching anything.
    realised = problem.realised(offsets)
    assert brute_clashes(problem, realised) == []
    assert packed.head == extent(problem.buffers, realised) >= packed.bound
    fixed = [i for i in range(len(offsets)) if i not in problem.online]
    assert [realised[i] for i in fixed] == [offsets[i] for i in fixed]


@given(chained(), st.randoms())
def test_first_fit_in_any_order_is_sound(problem: Problem, random) -> None:
    order = list(range(len(problem.buffers)))
    random.shuffle(order)
    offsets = first_fit(problem, order)
    assert brute_clashes(problem, offsets) == problem.clashes(offsets) == []
    assert extent(problem.buffers, offsets) >= problem.lower_bound()


@given(some_buffers())
def test_pairs_are_counted(buffers: list[Buffer]) -> None:
    problem = Problem(buffers)
    everyone = range(len(buffers))
    meeting = [(i, j) for i in everyone for j in everyone if i < j and buffers[i].meets(buffers[j])]
    assert sorted(problem.pairs()) == meeting
    assert count_pairs(buffers) == len(meeting)


def test_a_case_in_which_greedy_is_not_best() -> None:
    """Greedy puts both large ones at the start, the next below nothing, and the third on top."""
    assert extent(SUBOPTIMAL, greedy(SUBOPTIMAL)) == 384
    packed = pack(Problem(SUBOPTIMAL))
    assert packed.optimal
    assert packed.head == 272


def test_a_result_in_place_of_its_operand() -> None:
    buffers = [Buffer(64, 0, 1), Buffer(64, 1, 2)]
    assert pack(Problem(buffers)).head == 128
    packed = pack(Problem(buffers, [Reuse(0, 1, 1)]))
    assert packed.head == packed.bound == 64
    assert packed.offsets == (0, 0)


def test_a_chain_of_results_in_place() -> None:
    buffers = [Buffer(64, i, i + 1) for i in range(5)]
    reuses = [Reuse(i, i + 1, i + 1) for i in range(4)]
    packed = pack(Problem(buffers, reuses))
    assert (packed.head, packed.bound) == (64, 64)


def test_one_of_two_operands_is_written_over() -> None:
    buffers = [Buffer(64, 0, 1), Buffer(64, 0, 1), Buffer(64, 1, 2)]
    problem = Problem(buffers, [Reuse(0, 2, 1), Reuse(1, 2, 1)])
    packed = pack(problem)
    assert (packed.head, packed.bound) == (128, 128)
    assert len(problem.shared(packed.offsets)) == 1


def test_a_smaller_result_leaves_the_rest_of_its_operand_free_only_later() -> None:
    buffers = [Buffer(64, 0, 1), Buffer(16, 1, 2), Buffer(48, 2, 2)]
    packed = pack(Problem(buffers, [Reuse(0, 1, 1)]))
    assert (packed.head, packed.bound) == (64, 64)


def test_an_operand_may_lie_above_its_result() -> None:
    """The result may not reach what is still to be read: a distance, no coincidence."""
    buffers = [Buffer(64, 0, 1), Buffer(128, 1, 2)]
    problem = Problem(buffers, [Reuse(0, 1, 1, same=False, distance=80)])
    packed = pack(problem)
    assert (packed.head, packed.bound) == (144, 144)
    assert packed.offsets == (80, 0)
    assert problem.clashes([64, 0]) == [(0, 1)]


def test_what_the_planner_places_itself_counts() -> None:
    buffers = [Buffer(32, 0, 1), Buffer(32, 1, 2), Buffer(16, 1, 1)]
    packed = pack(Problem(buffers, online=[2]))
    assert packed.head == 80
    assert Problem(buffers, online=[2]).realised([0, 48, 999]) == [0, 48, 32]


def test_nothing_to_pack() -> None:
    packed = pack(Problem([]))
    assert (packed.offsets, packed.head, packed.bound) == ((), 0, 0)
