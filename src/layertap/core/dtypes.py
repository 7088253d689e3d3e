"""Element types by name, those that NumPy lacks (bfloat16, int4, float8) included."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_NARROW = frozenset({"int2", "uint2", "int4", "uint4"})
"""Integer types that NumPy itself has no dtype for."""


@functools.cache
def numpy_dtype(name: str) -> np.dtype[Any] | None:
    """The NumPy dtype called ``name``, or None for types without one (resource, variant).

    ``bfloat16``, ``int4``, ``uint4`` and the ``float8_*`` types come from ml_dtypes, which is
    imported only when one of them is asked for.
    """
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        scalar = getattr(ml_dtypes, name, None)
        return None if scalar is None else np.dtype(scalar)


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` is a floating type, bfloat16 and float8 included."""
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def precision(dtype: np.dtype[Any]) -> float:
    """The distance from 1 to the next number of a floating or complex dtype."""
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def integer_limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Smallest and largest integer of an integer dtype, int4 and uint4 included."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return int(limits.min), int(limits.max)
    import ml_dtypes

    narrow: Any = ml_dtypes.iinfo
    return int(narrow(dtype).min), int(narrow(dtype).max)


def is_integer(dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` is an integer type, int4 and uint4 included, truth values not."""
    return dtype.kind in "iu" or (dtype.kind == "V" and dtype.name in _NARROW)


def rounding(precision: float) -> float:
    """What two ways to compute the same may differ by, relative to the largest value, in a type of
    this precision: a thousand times that where it is fine, some times where it is coarse."""
    return min(max(8 * precision, min(1000 * precision, 1e-3)), 1 / 16)
