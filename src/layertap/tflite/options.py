"""Which fields of the tables that are copied whole refer to something.

Source: tensorflow/lite/schema/schema.fbs (schema version 3). Tables that are not named hold numbers
only.
"""

from __future__ import annotations

from layertap.tflite.rebuild import Choice, Spec

_INT64_LISTS = {2: (0,), 3: (0, 1, 2), 6: (0,), 9: (0,), 10: (0, 1, 2), 17: (0,)} | {
    7: (1, 2, 3),
    12: (0, 1, 2, 3),
    13: (0, 1, 2, 3, 4),
    16: (0, 1, 2, 4),
}
"""Fields of StableHLO options, by their number in the union, that are lists of int64."""

OPTIONS = {
    4: Choice(
        3,
        {number: {} for number in range(127)}
        | {3: {1: 4, 2: 4}, 17: {0: 4}, 30: {0: 4}, 111: {0: 1, 1: 1}, 115: {0: 4}},
    ),
    12: Choice(
        11,
        {number: {} for number in range(24)}
        | {number: dict.fromkeys(fields, 8) for number, fields in _INT64_LISTS.items()}
        | {
            4: {0: 8, 1: 8, 2: 8, 3: 8, 4: 1, 7: 8, 10: 8, 13: 8, 16: 4},
            5: {0: 1, 2: 1, 4: 4, 5: 1},
            12: {0: 8, 1: 8, 2: 8, 3: 8, 4: 4},
            21: {0: 1, 2: 1},
            23: {0: 4},
        },
    ),
}
"""The two unions with an operator's options, by their field. Concat embeddings, reshape, squeeze,
variable handle and bucketize have lists or texts; so have most of StableHLO's."""

_INDICES: dict[int, Spec] = {0: {}, 1: {0: 4}, 2: {0: 2}, 3: {0: 1}}

QUANTIZATION: Spec = {0: 4, 1: 4, 2: 4, 3: 8, 5: Choice(4, {0: {}, 1: {0: 1}})}
"""Quantization of a tensor; the newer schemes refer to further tensors and are not copied."""

SPARSITY: Spec = {0: 4, 1: 4, 2: ({3: Choice(2, _INDICES), 5: Choice(4, _INDICES)},)}

VARIANT: Spec = {0: 4}

__all__ = ["OPTIONS", "QUANTIZATION", "SPARSITY", "VARIANT"]
