"""The layout problem as a constraint program, for OR-tools' CP-SAT.

Source of the solver: https://developers.google.com/optimization/cp/cp_solver
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from layertap.arena.buffers import ALIGNMENT
from layertap.arena.packing import Packed, Problem, measured

MOST_PAIRS = 5_000
"""Pairs of buffers alive together up to which the solver is asked; more would take it minutes to
set out."""


_PATIENCE = 20
"""Seconds to wait for the solver's process, and for each unit of effort; machines differ."""

logger = logging.getLogger(__name__)


def installed() -> bool:
    """Whether the extra ``optimize`` is there."""
    return find_spec("ortools") is not None


def improved(problem: Problem, packed: Packed, *, effort: float) -> Packed:
    """``packed``, or a lower layout, with the bound that the solver proved.

    ``effort`` is the solver's deterministic time, about seconds; it, the fixed seed and the single
    thread make the same problem give the same layout everywhere.
    """
    offsets, bound = _solved(problem, packed, effort)
    found = measured(problem, offsets, bound, "cp-sat")
    if found.head < packed.head:
        return found
    return Packed(packed.offsets, packed.head, bound, packed.solver)


def _solved(problem: Problem, packed: Packed, effort: float) -> tuple[list[int], int]:
    pairs = [
        [
            i,
            j,
            problem.rise(i, j) // ALIGNMENT,
            problem.rise(j, i) // ALIGNMENT,
            problem.may_coincide(i, j),
        ]
        for i, j in problem.pairs()
    ]
    answer = _asked(
        {
            "sizes": [buffer.size // ALIGNMENT for buffer in problem.buffers],
            "start": [offset // ALIGNMENT for offset in packed.offsets],
            "bound": packed.bound // ALIGNMENT,
            "pairs": pairs,
            "effort": effort,
        }
    )
    if answer is None:
        return list(packed.offsets), packed.bound
    # A bound of 41.3 units means 42, one of 41.0000001 means 41.
    proven = math.ceil(answer["bound"] - 1e-6) * ALIGNMENT
    return [at * ALIGNMENT for at in answer["offsets"]], max(packed.bound, proven)


def _asked(question: dict[str, Any]) -> dict[str, Any] | None:
    """The answer of the solver's process; None where it has none, or did not come to an end."""
    ours = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            # -P: a file of the working directory must not shadow a module.
            [sys.executable, "-P", "-m", "layertap.arena.cp_sat"],
            input=json.dumps(question),
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=_PATIENCE + _PATIENCE * question["effort"],
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        logger.warning("the solver failed, its layout is left out: %s", error)
        return None
    answer: dict[str, Any] | None = json.loads(done.stdout)
    return answer


__all__ = ["MOST_PAIRS", "improved", "installed"]
