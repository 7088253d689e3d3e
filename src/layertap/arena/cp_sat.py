"""The solver's own process: a layout problem on standard input, its solution on standard output.

OR-tools and TensorFlow carry different builds of the same C++ libraries; loaded into one process
they end it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ortools.sat.python import cp_model


def solve(problem: dict[str, Any]) -> dict[str, Any] | None:
    """Sizes and offsets in units of the alignment; ``pairs`` are the numbers of two buffers, how
    far each must start above the other where it lies above it, and whether they may coincide."""
    model = cp_model.CpModel()
    sizes, start = problem["sizes"], problem["start"]
    height = max(a + size for a, size in zip(start, sizes, strict=True))
    head = model.new_int_var(problem["bound"], height, "head")
    at = []
    for i, size in enumerate(sizes):
        at.append(model.new_int_var(0, max(0, height - size), f"at{i}"))
        model.add(at[i] + size <= head)
        model.add_hint(at[i], start[i])
    for i, j, above_j, above_i, may_coincide in problem["pairs"]:
        above, below = model.new_bool_var(f"{i}>{j}"), model.new_bool_var(f"{i}<{j}")
        model.add(at[i] - at[j] >= above_j).only_enforce_if(above)
        model.add(at[j] - at[i] >= above_i).only_enforce_if(below)
        ways = [above, below]
        if may_coincide:
            ways.append(model.new_bool_var(f"{i}={j}"))
            model.add(at[i] == at[j]).only_enforce_if(ways[-1])
        model.add_bool_or(ways)
    model.minimize(head)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = problem["effort"]
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return {
        "offsets": [int(solver.value(place)) for place in at],
        "bound": solver.best_objective_bound,
    }


if __name__ == "__main__":
    json.dump(solve(json.load(sys.stdin)), sys.stdout)
