"""What the session takes out of the records that its worker writes, while it writes them."""

from __future__ import annotations

import numpy as np

from layertap.core.dtypes import Array
from layertap.runtimes.worker.block import Block
from layertap.runtimes.worker.records import rows_of
from layertap.runtimes.worker.wire import Header


class Taken:
    """The values of one request, as arrays of the session's own.

    ``count``: executions that were taken; ``values``: for each form of records a list of arrays
    (executions, *shape), one for each output.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.count = 0
        self._first = 0
        self._theirs: list[Array] = []
        self._ours: list[list[Array]] = []
        self._counts: list[int] = []

    @property
    def values(self) -> list[list[Array]]:
        return [
            [array if len(array) == count else array[:count].copy() for array in arrays]
            for arrays, count in zip(self._ours, self._counts, strict=True)
            if count
        ]

    def hear(self, message: Header) -> None:
        """Raises OSError where the memory of the block cannot be mapped."""
        if "ready" in message:
            self.take(message["ready"])
            return
        form = message["form"]
        self.take(form["first"])
        self._first = form["first"]
        self._theirs = rows_of(self.block, form["values"], form["stride"], form["room"])
        self._ours.append([np.empty(rows.shape, rows.dtype) for rows in self._theirs])
        self._counts.append(0)

    def take(self, count: int) -> None:
        """The first ``count`` executions are complete."""
        if count == self.count:
            return
        new = slice(self.count - self._first, count - self._first)
        for ours, theirs in zip(self._ours[-1], self._theirs, strict=True):
            ours[new] = theirs[new]
        self._counts[-1] = count - self._first
        self.count = count


__all__ = ["Taken"]
