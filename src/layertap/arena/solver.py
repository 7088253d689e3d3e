"""The layout problem as a constraint program, for OR-tools' CP-SAT.

Source of the solver: https://developers.google.com/optimization/cp/cp_solver
"""

from __future__ import annotations

import math
from importlib.util import find_spec

from layertap.arena.buffers import ALIGNMENT, extent
from layertap.arena.packing import Packed, Problem, measured

MOST_PAIRS = 5_000
"""Pairs of buffers alive together up to which the solver is asked; more would take it minutes to
set out."""


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
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    start = packed.offsets
    height = extent(problem.buffers, start) // ALIGNMENT
    head = model.new_int_var(packed.bound // ALIGNMENT, height, "head")
    at = []
    for i, buffer in enumerate(problem.buffers):
        size = buffer.size // ALIGNMENT
        at.append(model.new_int_var(0, max(0, height - size), f"at{i}"))
        model.add(at[i] + size <= head)
        model.add_hint(at[i], start[i] // ALIGNMENT)
    for i, j in problem.pairs():
        above, below = model.new_bool_var(f"{i}>{j}"), model.new_bool_var(f"{i}<{j}")
        model.add(at[i] - at[j] >= problem.rise(i, j) // ALIGNMENT).only_enforce_if(above)
        model.add(at[j] - at[i] >= problem.rise(j, i) // ALIGNMENT).only_enforce_if(below)
        ways = [above, below]
        if problem.may_coincide(i, j):
            ways.append(model.new_bool_var(f"{i}={j}"))
            model.add(at[i] == at[j]).only_enforce_if(ways[-1])
        model.add_bool_or(ways)
    model.minimize(head)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = effort
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return list(start), packed.bound
    offsets = [int(solver.value(place)) * ALIGNMENT for place in at]
    # A bound of 41.3 units means 42, one of 41.0000001 means 41.
    proven = math.ceil(solver.best_objective_bound - 1e-6) * ALIGNMENT
    return offsets, max(packed.bound, proven)


__all__ = ["MOST_PAIRS", "improved", "installed"]
