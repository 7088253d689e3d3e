"""What colour an operator's buffers have.

The colours are Paul Tol's scheme "light", made for cells that carry dark text and told apart with
every common kind of colour blindness. Source: Tol, Colour Schemes, SRON/EPS/TN/09-002, section 2.
"""

from __future__ import annotations

FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "input": ("#DDDDDD", ("INPUT",)),
    "depthwise": ("#99DDFF", ("DEPTHWISE",)),
    "convolution": ("#77AADD", ("CONV",)),
    "recurrent": ("#FFAABB", ("LSTM", "RNN", "GRU", "SVDF")),
    "matrix": ("#EE8866", ("FULLY_CONNECTED", "MATMUL", "EMBEDDING")),
    "reduction": ("#44BB99", ("POOL", "MEAN", "SUM", "REDUCE", "ARG_", "SOFTMAX")),
    "shape": (
        "#EEDD88",
        (
            "RESHAPE", "SQUEEZE", "EXPAND", "TRANSPOSE", "PAD", "CONCAT", "SPLIT", "SLICE", "PACK",
            "GATHER", "SPACE_TO", "_TO_SPACE", "BATCH_TO", "BROADCAST", "RESIZE", "SHAPE", "FILL",
        ),
    ),
    "element-wise": ("#BBCC33", ()),
}  # fmt: skip
"""The families in the order in which they are tried: a colour, and parts of operators' names. The
last one takes the rest."""


def family(op: str) -> str:
    """The family of an operator."""
    for name, (_, parts) in FAMILIES.items():
        if any(part in op.upper() for part in parts):
            return name
    return next(reversed(FAMILIES))


def colour(op: str) -> str:
    """The colour of an operator's buffers, as ``#rrggbb``."""
    return FAMILIES[family(op)][0]


__all__ = ["FAMILIES", "colour", "family"]
