"""Which axis counts samples, found by giving the inputs two different batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layertap.core.dtypes import numpy_dtype
from layertap.core.feeds import InputSpec
from layertap.core.following import BATCHES
from layertap.runtimes.tensorflow.opened import Input
from layertap.runtimes.tfgraph.infer import Shape


@dataclass(frozen=True, slots=True)
class Batching:
    """``batched``: inputs have a batch axis. ``size``: the only size that it can have, or None."""

    batched: bool
    size: int | None

    def sizes(self) -> tuple[int, int]:
        """The batch sizes of the two trials."""
        return BATCHES if self.size is None else (self.size, self.size)

    def counts(self, one: Input) -> bool:
        """Whether axis 0 of an input counts samples."""
        return self.batched and (one.shape or ())[:1] == (self.size,)

    def trial(self, one: Input, samples: int | None, free: int | None) -> Shape | None:
        """The shape of an input for a number of samples and a size for all that is open, None
        where that stays open."""
        if one.shape is None:
            return None
        filled = tuple(free if size is None else size for size in one.shape)
        return (samples, *filled[1:]) if self.counts(one) else filled

    def free(self, one: Input) -> bool:
        """Whether an input has open sizes beside the batch."""
        return one.shape is not None and None in one.shape[self.counts(one) :]

    def spec(self, one: Input) -> InputSpec:
        """What a feed must hold. Inputs without batch axis are checked by the session."""
        dtype = one.dtype.name if numpy_dtype(one.dtype.name) is not None else None
        checked = not self.batched or self.counts(one)
        return InputSpec(one.name, dtype, one.shape if checked else None, required=not one.optional)


def batching(inputs: Sequence[Input]) -> Batching:
    """An open axis 0 is the batch. Without one, equal sizes on axis 0 of all inputs are, unless one
    of them is a vector or a scalar: then a feed is one sample."""
    shapes = [one.shape for one in inputs if not one.optional] or [one.shape for one in inputs]
    if not shapes or any(shape is None or shape[:1] == (None,) for shape in shapes):
        return Batching(True, None)
    first = {shape[0] for shape in shapes if shape}
    if len(first) == 1 and all(shape is not None and len(shape) > 1 for shape in shapes):
        return Batching(True, first.pop())
    return Batching(False, None)


def merged(first: Shape | None, second: Shape | None) -> Shape | None:
    """A size that differs between the trials is open."""
    if first is None or second is None or len(first) != len(second):
        return None
    return tuple(a if a == b else None for a, b in zip(first, second, strict=True))
