"""What the numbers of frames tell."""

from __future__ import annotations

import pytest

from layertap.firmware.wire.sequence import Order, Sequence


def taken(numbers: list[int]) -> tuple[Sequence, list[Order]]:
    sequence = Sequence()
    return sequence, [sequence.take(number % 256) for number in numbers]


def test_frames_in_order_through_many_rounds() -> None:
    sequence, orders = taken(list(range(77, 2000)))
    assert set(orders) == {Order.NEXT}
    assert (sequence.lost, sequence.late, sequence.repeated) == (0, 0, 0)


@pytest.mark.parametrize("gap", [1, 2, 100, 127, 128, 200, 254])
def test_losses_are_counted(gap: int) -> None:
    sequence, orders = taken([*range(300), *range(300 + gap, 900)])
    assert sequence.lost == gap
    assert (sequence.late, sequence.repeated) == (0, 0)
    assert orders.count(Order.AFTER_LOSS) == 1


def test_swapped_frames_are_late_and_not_lost() -> None:
    sequence, orders = taken([*range(250), 251, 250, *range(252, 300)])
    assert (sequence.lost, sequence.late, sequence.repeated) == (0, 1, 0)
    assert orders[250:252] == [Order.AFTER_LOSS, Order.LATE]


def test_two_frames_that_come_behind_two_others() -> None:
    sequence, orders = taken([0, 1, 4, 5, 2, 3, 6])
    assert (sequence.lost, sequence.late, sequence.repeated) == (0, 2, 0)
    assert orders[-1] is Order.NEXT


def test_a_frame_that_comes_twice() -> None:
    sequence, orders = taken([0, 1, 2, 2, 3, 4])
    assert (sequence.lost, sequence.late, sequence.repeated) == (0, 0, 1)
    assert orders[3:] == [Order.REPEATED, Order.NEXT, Order.NEXT]


def test_a_number_long_skipped_is_not_late_a_round_later() -> None:
    sequence, _ = taken([*range(10), *range(11, 10 + 256), 10 + 256])
    assert (sequence.lost, sequence.late) == (1, 0)


def test_a_restart_is_no_loss() -> None:
    sequence, _ = taken(list(range(40)))
    sequence.restart()
    assert [sequence.take(number) for number in (0, 1)] == [Order.NEXT, Order.NEXT]
    assert sequence.lost == 0
