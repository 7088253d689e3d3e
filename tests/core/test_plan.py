from __future__ import annotations

from collections.abc import Sequence

import pytest

from layertap.core.graph import TapPoint
from layertap.core.plan import make_plan
from layertap.errors import Untappable


def tap(name: str, index: int, **more: object) -> TapPoint:
    return TapPoint(name, "activation", "ADD", "float32", (1, 4), index, **more)  # type: ignore[arg-type]


A, B, C = tap("a", 0), tap("b", 1), tap("c", 2)
W = TapPoint("w", "weight", "", "float32", (4,), 3, per="run")


def by_parity(taps: Sequence[TapPoint]) -> list[list[TapPoint]]:
    assert W not in taps
    return [[t for t in taps if t.index % 2 == odd] for odd in (0, 1)]


def test_one_pass_reads_what_a_pass_reads() -> None:
    plan = make_plan([A, B, C, W])
    assert plan.taps == (A, B, C, W)
    assert plan.passes == ((A, B, C),)
    assert "pass" not in str(plan)


def test_the_session_groups() -> None:
    plan = make_plan([A, B, C, W], group=by_parity)
    assert plan.passes == ((A, C), (B,))
    assert str(plan).endswith(", in 2 passes")
    assert make_plan([A, B, C], group=by_parity).passes == ((A, C), (B,))


def test_nothing_to_run_is_not_grouped() -> None:
    assert make_plan([W], group=by_parity).passes == ()


def test_what_cannot_be_read_is_refused_before_it_is_grouped() -> None:
    with pytest.raises(Untappable, match="'d' cannot be read: never"):
        make_plan([A, tap("d", 4, untappable="never")], group=by_parity)
