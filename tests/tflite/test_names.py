from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from layertap.tflite.names import unique_names


def test_the_first_keeps_its_name() -> None:
    assert unique_names(["a", "b", "a", "a"]) == ["a", "b", "a@1", "a@2"]


def test_names_of_the_file_that_look_like_ours_stay() -> None:
    assert unique_names(["a", "a", "a@1", "a"]) == ["a", "a@2", "a@1", "a@3"]


@given(st.lists(st.sampled_from(["a", "a@1", "a@2", "a@1@1", "b", ""])))
def test_always_unique_and_first_ones_unchanged(wanted: list[str]) -> None:
    names = unique_names(wanted)
    assert len(set(names)) == len(wanted)
    for i, name in enumerate(wanted):
        assert name in wanted[:i] or names[i] == name


def test_many_repetitions_are_quick() -> None:
    assert unique_names(["a"] * 100_000)[-1] == "a@99999"
