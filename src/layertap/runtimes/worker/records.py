"""Where the worker puts what it computes: one record per execution, all of one form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from layertap.core.dtypes import Array
from layertap.runtimes.worker.block import ALIGNMENT, Block, Place, aligned

Read = Callable[[], Array]
"""Gives the present value of a tensor, valid until the next execution."""

Form = dict[str, Any]
"""What the session must know of consecutive records of one form: ``first``, the execution whose
record is the first of them; ``room``, for how many there is room; ``stride``, bytes from one record
to the next; ``values``, the place of each value in the first record."""


class Records:
    """Up to ``most`` records in ``block`` from byte ``start`` on: at least one, and more while they
    end before byte ``limit``. ``announce`` is told of every form before records of it count."""

    def __init__(
        self, block: Block, start: int, limit: int, most: int, announce: Callable[[Form], None]
    ) -> None:
        self.block, self.limit, self.most, self.announce = block, limit, most, announce
        self.count = 0
        self._next = start
        self._rows: list[Array] = []
        self._shapes: list[tuple[int, ...]] = []
        self._stride = 0
        self._used = self._room = 0

    @property
    def full(self) -> bool:
        return self.count > 0 and self._used == self._room

    def add(self, readers: Sequence[Read]) -> None:
        """One more record, of what ``readers`` give. Raises OSError when memory runs out."""
        if not self._fits(readers):
            # Shapes depend on values, then, or there was no record yet.
            self._begin([read() for read in readers])
            self._fits(readers)
        self.count += 1
        self._used += 1
        self._next += self._stride

    def _fits(self, readers: Sequence[Read]) -> bool:
        """Write one record, unless its form is another one."""
        at = self._used
        if at == self._room:
            return False
        for rows, shape, read in zip(self._rows, self._shapes, readers, strict=True):
            value = read()
            if value.shape != shape:
                return False
            rows[at] = value
        return True

    def _begin(self, values: Sequence[Array]) -> None:
        places: list[Place] = []
        end = self._next
        for value in values:
            places.append((value.dtype.name, value.shape, end))
            end = aligned(end + value.nbytes)
        self._stride = max(end - self._next, ALIGNMENT)
        fitting = max(1, (self.limit - self._next) // self._stride)
        self._used, self._room = 0, min(fitting, self.most - self.count)
        self.block.reach(self._next + self._stride * self._room)
        self._shapes = [value.shape for value in values]
        self._rows = rows_of(self.block, places, self._stride, self._room)
        form = {"first": self.count, "room": self._room}
        self.announce({**form, "stride": self._stride, "values": places})


def rows_of(block: Block, places: Sequence[Place], stride: int, count: int) -> list[Array]:
    """The values of ``count`` records, of which the first holds them at ``places``, each as an
    array (records, *shape)."""
    return [block.array((name, (count, *shape), offset), stride) for name, shape, offset in places]


__all__ = ["Form", "Read", "Records", "rows_of"]
