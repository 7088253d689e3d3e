"""What of a model outlives one execution."""

from __future__ import annotations

from typing import Literal

from layertap.tflite.model import TfliteModel
from layertap.tflite.schema import OPERATORS

State = Literal["none", "variables", "resources"]

_KEEPERS = frozenset({"VAR_HANDLE", "HASHTABLE", "CALL_ONCE"})


def state_of(model: TfliteModel) -> State:
    """``"none"``, ``"variables"`` (tensors that interpreters reset themselves), or ``"resources"``:
    variables and tables outside the tensors, what runs once only, and custom operators, whose
    memory nobody can see. Only a new interpreter is sure to forget those.
    """
    operators = {op.name for subgraph in model.subgraphs for op in subgraph.operators}
    if operators & _KEEPERS or operators - set(OPERATORS):
        return "resources"
    tensors = (tensor for subgraph in model.subgraphs for tensor in subgraph.tensors)
    return "variables" if any(tensor.variable for tensor in tensors) else "none"


__all__ = ["State", "state_of"]
