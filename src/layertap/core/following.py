"""Following the axis that counts samples through a computation, operation by operation.

The computation is known twice, for two numbers of samples, without values: a trail each. An axis
whose size follows the number of samples says nothing yet about their order, so each operation on
the way has to leave that as it is. Where one is not known to do so, nothing is certain from there
on, and a further run has to tell.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Key = Hashable
"""Stands for one tensor, and for the same one on both trails."""

Shape = tuple[int | None, ...]

BATCHES = (13, 17)
"""The numbers of samples of the two trials, which differ in nothing else."""
FREE = (256, 384)
"""Stand-ins for other sizes that a model leaves open; far apart, so that they still differ after
strided operations."""

FOLLOWED = "followed op by op"
ANOTHER_ORDER = "a further run, in another order"
ONE_SAMPLE = "one sample"
NO_AXIS = "none of its axes has the size of the batch"


@dataclass(frozen=True, slots=True)
class Step:
    """One operation. ``upsets`` are the axes of its first input along which it may change the
    order of what it is given; None: nobody knows what it does. ``kind`` is ``reshape`` for what
    leaves the elements in their order, ``merge`` for what is one of its inputs, ``lookup`` for what
    takes from its first input what its second one says, within each of the first ``shared`` axes.
    """

    op: str
    inputs: tuple[Key, ...]
    outputs: tuple[tuple[Key, Shape | None], ...]
    upsets: frozenset[int] | None = frozenset()
    kind: Literal["", "reshape", "lookup", "merge"] = ""
    shared: int = 0


@dataclass
class Trail:
    """A computation for one number of samples: what it is given, and its steps in order."""

    inputs: Mapping[Key, Shape | None]
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Followed:
    """What is known of a tensor: axis ``axis`` has ``times`` elements for each sample, None where
    there is no such axis, or several. ``certain``: they are those of the samples in their order.
    ``varies``: it depends on what is given, or on how much."""

    shape: Shape | None
    axis: int | None
    times: int
    certain: bool
    varies: bool


def follow(first: Trail, second: Trail, samples: tuple[int, int]) -> dict[Key, Followed]:
    """What is known of each tensor of two trails, of ``samples`` samples; nothing where the
    computation itself depends on their number."""
    alike = len(first.steps) == len(second.steps) and all(
        (a.op, a.inputs, [key for key, _ in a.outputs])
        == (b.op, b.inputs, [key for key, _ in b.outputs])
        for a, b in zip(first.steps, second.steps, strict=True)
    )
    known: dict[Key, Followed] = {}
    for key in first.inputs if alike else ():
        one, two = first.inputs[key], second.inputs[key]
        axis, times = sample_axis(one, two, samples)
        known[key] = Followed(one, axis, times, True, True)
    for a, b in zip(first.steps, second.steps, strict=True) if alike else ():
        _take(a, b, samples, known)
    return known


def sample_axis(
    first: Shape | None, second: Shape | None, samples: tuple[int, int]
) -> tuple[int | None, int]:
    """The axis of a tensor that has as many elements as there are samples, or a multiple, and that
    multiple, where no other axis depends on their number; the shapes are those of the two trials.
    """
    if first is None or second is None or len(first) != len(second):
        return None, 1
    moved = [axis for axis, sizes in enumerate(zip(first, second, strict=True)) if _differ(*sizes)]
    if len(moved) != 1:
        return None, 1
    one, two = first[moved[0]] or 0, second[moved[0]] or 0
    times, rest = divmod(one, samples[0])
    return (moved[0], times) if times and not rest and times * samples[1] == two else (None, 1)


def _differ(one: int | None, two: int | None) -> bool:
    return one != two


def _take(a: Step, b: Step, samples: tuple[int, int], known: dict[Key, Followed]) -> None:
    given = [known[key] for key in a.inputs if key in known]
    varies = any(one.varies for one in given)
    sound = len(given) == len(a.inputs) and a.upsets is not None
    sound = sound and all(one.certain for one in given) and _looks_up_in_order(a, given)
    for (key, one), (_, two) in zip(a.outputs, b.outputs, strict=True):
        axis, times = sample_axis(one, two, samples)
        known_sizes = one is not None and None not in one
        same = known_sizes and one == two
        kept = same or (axis is not None and _in_order(a, given, one, axis, times))
        certain = sound and known_sizes and kept
        known[key] = Followed(one, axis, times, certain, varies or not same)


def _looks_up_in_order(step: Step, given: Sequence[Followed]) -> bool:
    if step.kind != "lookup" or not all(one.varies for one in given[:2]):
        return True
    return all(one.axis is not None and one.axis < step.shared for one in given[:2])


def _in_order(
    step: Step, given: Sequence[Followed], shape: Shape | None, axis: int, times: int
) -> bool:
    counted = [one for one in given if one.axis is not None]
    if step.kind == "reshape" and counted:
        # Elements keep their order: so many come before a sample's first one, of each block.
        before, after = counted[0].shape or (), shape or ()
        return _elements(before[: counted[0].axis]) == _elements(after[:axis])
    if step.kind == "merge" and any(one.axis != axis for one in counted):
        return False
    upset = bool(given) and given[0].axis in (step.upsets or ())
    return not upset and all(one.times == times for one in counted)


def _elements(shape: Shape) -> int | None:
    return math.prod(size for size in shape if size is not None) if None not in shape else None


__all__ = [
    "ANOTHER_ORDER",
    "BATCHES",
    "FOLLOWED",
    "FREE",
    "NO_AXIS",
    "ONE_SAMPLE",
    "Followed",
    "Key",
    "Shape",
    "Step",
    "Trail",
    "follow",
    "sample_axis",
]
