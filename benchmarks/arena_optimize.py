"""How much smaller a layout gets: the head of the arena as the interpreter's own planner lays it
out, and as `layertap.optimize` does, with each kind of sharing.

A ratio is the new head by the old one; a row of the lower bound by the old head says what is left.
"""

from __future__ import annotations

import sys

from benchmarks.models import tflite_files

import layertap
from layertap.arena.memory_map import Sharing

SHARINGS: tuple[Sharing, ...] = ("in-place", "overlapping")


def rows() -> list[dict[str, object]]:
    """Per model and kind of sharing the ratio of the heads; bar: never above 1."""
    found: list[dict[str, object]] = []
    for path in tflite_files():
        for sharing in SHARINGS:
            best = layertap.optimize(path, sharing=sharing, verify=False)
            before, after = best.before.arena, best.after.arena
            bound = f"bound {best.layout.bound:,}{', proven' if best.layout.optimal else ''}"
            heads = f"{before.head:,} to {after.head:,} bytes, {bound}"
            minimum = f"smallest arena {before.minimum:,} to {after.minimum:,}"
            found.append(
                {
                    "work": f"head of {path.stem}, sharing {sharing}",
                    "contender": f"{heads}; {minimum}",
                    "ratio": after.head / before.head,
                    "bar": 1.0,
                }
            )
            print(found[-1], file=sys.stderr)
    return found
