from __future__ import annotations

from layertap.core.names import unused


def test_a_free_name_stays_and_a_taken_one_is_numbered() -> None:
    assert unused("a", {"b"}) == "a"
    assert unused("a", ["a", "a.1", "a.3"]) == "a.2"
    assert unused("a", {"a", "a.1"}, "_") == "a_1"
