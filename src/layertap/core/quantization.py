"""Affine quantization: the real numbers that stored integers stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from layertap.core.dtypes import Array, integer_limits

_BLOCK = 1 << 13
"""Elements that are converted at a time."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """``real = scale * (stored - zero_point)``, per tensor or per slice along ``axis``.

    Source: TensorFlow Lite 8-bit quantization specification. ``scales`` are float32 values,
    ``zero_points`` integers of the same count; one pair means per tensor.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0

    @property
    def per_channel(self) -> bool:
        return len(self.scales) > 1

    def dequantize(self, raw: Array) -> Array:
        """Real values of ``raw`` (any integer dtype), float32, same shape."""
        with self._blocks(raw, np.int64, np.float32) as blocks:
            for stored, scales, zeros, real in blocks:
                real[...] = (stored - zeros) * scales
            return blocks.operands[3]

    def quantize(self, values: Array, dtype: np.dtype[Any]) -> Array:
        """``values`` rounded half away from zero to integers of ``dtype``, saturated."""
        return self.saturate(values, dtype)[0]

    def saturate(self, values: Array, dtype: np.dtype[Any]) -> tuple[Array, int]:
        """What :meth:`quantize` gives, and how many of the values no integer of ``dtype`` stands
        for, so that they became its smallest or its largest."""
        lowest, highest = integer_limits(dtype)
        clipped = 0
        with self._blocks(values, np.float64, dtype) as blocks:
            for real, scales, zeros, stored in blocks:
                scaled = real / scales
                rounded = np.trunc(scaled + np.copysign(0.5, scaled)) + zeros
                clipped += int(np.count_nonzero((rounded < lowest) | (rounded > highest)))
                stored[...] = np.clip(rounded, lowest, highest)
            return blocks.operands[3], clipped

    def _blocks(self, given: Array, read: Any, made: Any) -> np.nditer:
        """Blocks of ``given`` as ``read``, with scales and zero points to match, and of an array
        of dtype ``made`` that is to be filled: memory does not grow by copies of the whole."""
        scales, zeros = np.asarray(self.scales), np.asarray(self.zero_points)
        along = [1] * given.ndim
        if self.per_channel:
            along[self.axis] = -1
        operands = [given, scales.reshape(along), zeros.reshape(along), None]
        return np.nditer(
            operands,
            ["external_loop", "buffered", "zerosize_ok"],
            [["readonly"], ["readonly"], ["readonly"], ["writeonly", "allocate"]],
            [read, np.float64, np.int64, made],
            casting="unsafe",
            buffersize=_BLOCK,
        )

    def __str__(self) -> str:
        if self.per_channel:
            return f"per-channel[{len(self.scales)}] axis {self.axis}"
        return f"{self.scales[0]:.6g} * (q - {self.zero_points[0]})"
