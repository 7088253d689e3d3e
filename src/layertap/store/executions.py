"""Which executions of a model the samples of a run came from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from layertap.core.dtypes import Array


class Executions:
    """All executions of a run in order, as ``runs`` of (samples of one, how often it came in a
    row)."""

    def __init__(self, runs: Iterable[Sequence[int]] = ()) -> None:
        self.runs: list[tuple[int, int]] = []
        self.samples = self.count = 0
        self._firsts: list[tuple[int, int]] = []
        """The first sample and the first execution of each run."""
        for samples, times in runs:
            self.add(samples, times)

    def add(self, samples: int, times: int) -> None:
        """``times`` more executions, of ``samples`` samples each."""
        if self.runs and self.runs[-1][0] == samples:
            self.runs[-1] = samples, self.runs[-1][1] + times
        else:
            self.runs.append((samples, times))
            self._firsts.append((self.samples, self.count))
        self.samples += samples * times
        self.count += times

    def at(self, sample: int) -> tuple[int, int]:
        """The number of the execution that ``sample`` was in, and how many samples that had."""
        i = bisect_right(self._firsts, sample, key=lambda first: first[0]) - 1
        first, number = self._firsts[i]
        samples = self.runs[i][0]
        return number + (sample - first) // samples, samples

    def since(self, sample: int) -> list[tuple[int, int]]:
        """The runs of what came from ``sample`` on, where an execution begins."""
        number = self.at(sample)[0] if sample < self.samples else self.count
        firsts = [first for _, first in self._firsts]
        later = zip(self.runs, firsts, strict=True)
        cut = ((n, min(times, first + times - number)) for (n, times), first in later)
        return [(n, times) for n, times in cut if times > 0]


def groups(executions: Executions, numbers: Iterable[Array]) -> Iterator[tuple[int, int, int]]:
    """Executions that follow one another and have as many samples each, as (number of the first,
    samples of one, how many), of which there are rows: ``numbers`` are the samples that the rows
    belong to, in order, in blocks. All samples of an execution have a row, or none has."""
    first = size = times = passed = 0
    for block in numbers:
        at = passed  # the rows of an execution may go on in the next block
        while at < len(block):
            number, samples = executions.at(int(block[at]))
            if (number, samples) != (first + times, size):
                if times:
                    yield first, size, times
                first, size, times = number, samples, 0
            times += 1
            at += samples
        passed = at - len(block)
    if times:
        yield first, size, times
