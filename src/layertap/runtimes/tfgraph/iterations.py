"""How often a loop runs, where only constants and known shapes decide that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from layertap.runtimes.tfgraph.scope import ARGUMENT, Node, Ref, Scope, in_order

MOST = 2_000
"""Loops are counted up to here: beyond, counting would be felt."""
_GIVEN = (ARGUMENT, "Const")

_OPS: Mapping[str, Callable[..., Any]] = {
    "Identity": lambda x: x,
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Minimum": np.minimum,
    "Maximum": np.maximum,
    "Less": np.less,
    "LessEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
    "LogicalAnd": np.logical_and,
    "LogicalOr": np.logical_or,
    "LogicalNot": np.logical_not,
}


def iterations(loop: Node, values: Sequence[Any]) -> int | None:
    """The number of iterations of a While node, None where it cannot be told.

    ``values``: what its inputs are, None where that is not known.
    """
    condition, body = loop.branches
    needed = _deciding(condition, body)
    goes_on = _simple(condition, [condition.results[0]])
    steps = _simple(body, [body.results[i] for i in needed])
    if goes_on is None or steps is None or any(values[i] is None for i in needed):
        return None
    state = {i: values[i] for i in needed}
    with np.errstate(all="ignore"):
        for count in range(MOST):
            known = _computed(goes_on, condition, state)
            if not known[condition.results[0]]:
                return count
            known = _computed(steps, body, state)
            state = {i: known[body.results[i]] for i in needed}
    return None


def _deciding(condition: Scope, body: Scope) -> list[int]:
    """The loop variables that the condition depends on, in this iteration or in later ones."""
    needed: set[int] = set()
    found = _arguments(condition, [condition.results[0]])
    while found - needed:
        needed |= found
        found = _arguments(body, [body.results[i] for i in needed])
    return sorted(needed)


def _arguments(scope: Scope, refs: Sequence[Ref]) -> set[int]:
    nodes = _operands(scope, refs)
    return {i for i, arg in enumerate(scope.args) if arg in nodes}


def _operands(scope: Scope, refs: Sequence[Ref]) -> dict[str, Node]:
    """What ``refs`` are computed from; what merely runs before does not matter."""
    todo, found = [name for name, _ in refs], dict[str, Node]()
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = replace(scope.nodes[name], controls=())
            todo.extend(name for name, _ in found[name].inputs)
    return found


def _simple(scope: Scope, refs: Sequence[Ref]) -> list[Node] | None:
    """What ``refs`` need, in order; None if there are other operations among that."""
    nodes = list(in_order(_operands(scope, refs)))
    return nodes if all(n.op in _OPS or n.op in _GIVEN for n in nodes) else None


def _computed(nodes: Sequence[Node], scope: Scope, state: Mapping[int, Any]) -> dict[Ref, Any]:
    known: dict[Ref, Any] = {}
    for node in nodes:
        if node.op == ARGUMENT:
            value = state[scope.args.index(node.name)]
        elif node.op == "Const":
            value = tf.make_ndarray(node.proto.attr["value"].tensor)
        else:
            value = _OPS[node.op](*(known[ref] for ref in node.inputs))
        known[node.name, 0] = value
    return known
