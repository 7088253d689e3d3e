"""Frames are numbered modulo 256: what the numbers tell about loss and order."""

from __future__ import annotations

from enum import Enum, auto

_MODULUS = 256
_AHEAD = 128
"""A number fewer than this many places ahead is ahead; otherwise it lies behind."""


class Order(Enum):
    """Where a frame stands after those before it."""

    NEXT = auto()
    AFTER_LOSS = auto()
    LATE = auto()
    REPEATED = auto()


class Sequence:
    """Follows the numbers of the frames of one direction.

    ``lost`` counts frames that were skipped and have not come late, ``late`` those that have,
    ``repeated`` frames with a number that was there before. A loss of 256 frames at a
    time is not seen here: the counts of DONE are there for that.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.late = 0
        self.repeated = 0
        self._expected: int | None = None
        self._skipped: set[int] = set()
        self._stray: tuple[int, int] | None = None

    def restart(self) -> None:
        """The sender begins anew: the next number is right, whatever it is."""
        self._expected = None
        self._skipped.clear()
        self._stray = None

    def take(self, number: int) -> Order:
        """Where the frame with this number stands."""
        expected = number if self._expected is None else self._expected
        ahead = (number - expected) % _MODULUS
        stray, self._stray = self._stray, None
        if ahead < _AHEAD:
            self._skip(expected, ahead)
        elif number in self._skipped:
            self._skipped.discard(number)
            self.lost -= 1
            self.late += 1
            return Order.LATE
        elif stray is not None and stray[0] == number:
            # Two in a row from far away: more than half a round was lost, they are not stragglers.
            self.repeated -= 1
            self.lost += stray[1]
            self._skipped.clear()
        else:
            self.repeated += 1
            self._stray = (number + 1) % _MODULUS, ahead
            return Order.REPEATED
        self._expected = (number + 1) % _MODULUS
        self._skipped.discard((number + _AHEAD) % _MODULUS)
        return Order.AFTER_LOSS if ahead else Order.NEXT

    def _skip(self, first: int, count: int) -> None:
        self.lost += count
        for number in range(first, first + count):
            self._skipped.add(number % _MODULUS)
            self._skipped.discard((number + _AHEAD) % _MODULUS)


__all__ = ["Order", "Sequence"]
