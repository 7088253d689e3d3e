from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.arena.grouping import Limit, _Search, packing_bound, split

weights = st.lists(st.integers(1, 10), min_size=1, max_size=7)


def partitions(things: Sequence[int]) -> list[list[list[int]]]:
    if not things:
        return [[]]
    found = []
    for rest in partitions(things[1:]):
        found.append([[things[0]], *rest])
        for i in range(len(rest)):
            found.append([*rest[:i], [things[0], *rest[i]], *rest[i + 1 :]])
    return found


@given(weights.filter(lambda sizes: len(sizes) > 1), st.integers(10, 20), st.data())
def test_few_things_are_split_into_fewest(sizes: list[int], room: int, data: st.DataObject) -> None:
    """Whatever fits: some groups are refused beyond what their sizes say."""
    things = list(range(len(sizes)))
    refused = data.draw(st.sets(st.frozensets(st.sampled_from(things), min_size=2), max_size=8))

    def fits(group: Sequence[int]) -> bool:
        return sum(sizes[i] for i in group) <= room and frozenset(group) not in refused

    found = split(things, fits, [Limit(dict(enumerate(sizes)), room)])
    assert all(fits(group) for group in found.groups)
    assert sorted(i for group in found.groups for i in group) == things
    assert found.groups == tuple(sorted(tuple(sorted(group)) for group in found.groups))
    fewest = min(len(p) for p in partitions(things) if all(fits(group) for group in p))
    assert len(found.groups) == fewest == found.at_least
    assert found.fewest


@given(st.lists(st.integers(1, 100), min_size=11, max_size=60), st.integers(100, 300))
@settings(max_examples=40)
def test_many_things(sizes: list[int], room: int) -> None:
    things = list(range(len(sizes)))
    limit = Limit(dict(enumerate(sizes)), room)
    found = split(things, lambda group: limit.spare(group) >= 0, [limit])
    assert sorted(i for group in found.groups for i in group) == things
    assert all(sum(sizes[i] for i in group) <= room for group in found.groups)
    # First fit decreasing needs at most 11/9 of the fewest, and one.
    assert found.at_least <= len(found.groups) <= 11 / 9 * max(1, -(-sum(sizes) // room) * 2) + 1
    assert found.fewest == (len(found.groups) == found.at_least)


def test_one_group_less_than_first_fit_finds() -> None:
    sizes = [15, 7, 9, 4, 5, 7, 10, 9, 15, 3, 17, 18]
    limit = Limit(dict(enumerate(sizes)), 30)
    search = _Search(list(limit.loads), lambda group: True, [limit])
    assert min(len(search.first_fit(order)) for order in search.orders()) == 5
    found = split(list(limit.loads), lambda group: limit.spare(group) >= 0, [limit])
    assert len(found.groups) == 4
    assert found.fewest


def test_a_thousand_things_are_split_at_once() -> None:
    loads = {i: 1 + i % 97 for i in range(1000)}
    found = split(list(loads), lambda group: len(group) < 9, [Limit(loads, 300)])
    assert sorted(i for group in found.groups for i in group) == list(loads)


@given(weights, st.integers(10, 20))
def test_the_bound_is_never_above_the_truth(sizes: list[int], room: int) -> None:
    splits = partitions(list(range(len(sizes))))
    fewest = min(len(p) for p in splits if all(sum(sizes[i] for i in group) <= room for group in p))
    assert -(-sum(sizes) // room) <= packing_bound(sizes, room) <= fewest


def test_nothing_and_everything() -> None:
    assert split([], lambda group: False).groups == ()
    assert split([3, 1, 3], lambda group: True).groups == ((3, 1),)
    assert split([3, 1, 2], lambda group: len(group) < 2).groups == ((3,), (1,), (2,))


def test_each_limit_counts() -> None:
    by_weight = Limit({0: 9, 1: 1, 2: 1, 3: 1}, 10)
    by_room = Limit({0: 0, 1: 5, 2: 5, 3: 5}, 5)
    found = split([0, 1, 2, 3], lambda group: True, [by_weight, by_room])
    # Everything at once is asked for first: the limits are about what does not fit.
    assert len(found.groups) == 1
    found = split([0, 1, 2, 3], lambda group: len(group) < 4, [by_weight, by_room])
    assert found.groups == ((0, 1), (2,), (3,))
    assert found.fewest
