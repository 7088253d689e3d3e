"""Element types by name, those that NumPy lacks (bfloat16, int4, float8) included."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


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
