"""What can be done about operators that an interpreter does not have."""

from __future__ import annotations

from collections.abc import Collection

from layertap.core.graph import Graph, TapPoint
from layertap.tflite.model import Operator, TfliteModel
from layertap.tflite.schema import OPERATORS

_OF_LITERT = frozenset(
    {"TFLite_Detection_PostProcess", "Mfcc", "AudioSpectrogram", "NumericVerify"}
)
"""Custom operators that LiteRT has all the same. Source: litert's kernels/register.cc."""


def litert_lacks(model: TfliteModel) -> list[str]:
    """Names of the operators that LiteRT is known not to have: custom ones."""
    return sorted(_names(model) - set(OPERATORS) - _OF_LITERT)


def micro_lacks(model: TfliteModel) -> list[str]:
    """Names of the operators that TensorFlow Lite Micro does not have."""
    from layertap.arena.kernels import known

    return sorted(name for name in _names(model) if not known(name, "reference"))


def what_else(model: TfliteModel, graph: Graph, main: int, lacking: Collection[str]) -> str:
    """A hint for a model with operators ``lacking`` that no runtime here has: the part before the
    first of them."""
    last = _last_before(model, graph, main, lacking)
    bring = "the program that the model was made for brings such operators along"
    if all(name.startswith("Flex") for name in lacking):
        bring = "they are TensorFlow's own: convert the model without SELECT_TF_OPS"
    if last is None:
        return bring
    name = last.native if '"' in last.name or " " in last.name else last.name
    return f'{bring}; export it with until="{name}" for a file of what comes before, which runs'


def _names(model: TfliteModel) -> set[str]:
    return {operator.name for graph in model.subgraphs for operator in graph.operators}


def _last_before(
    model: TfliteModel, graph: Graph, main: int, lacking: Collection[str]
) -> TapPoint | None:
    """The last result that is computed before any operator ``lacking`` runs."""
    taps = {tap.index: tap for tap in graph if tap.subgraph == main and not tap.untappable}
    last = None
    for operator in model.subgraphs[main].operators:
        if _uses(model, operator, lacking, set()):
            return last
        last = next((taps[i] for i in operator.outputs if i in taps), last)
    return None


def _uses(model: TfliteModel, operator: Operator, names: Collection[str], seen: set[int]) -> bool:
    """Whether running ``operator`` runs one of those called ``names``."""
    if operator.name in names:
        return True
    for called in set(operator.calls) - seen:
        seen.add(called)
        if any(_uses(model, inner, names, seen) for inner in model.subgraphs[called].operators):
            return True
    return False


__all__ = ["litert_lacks", "micro_lacks", "what_else"]
