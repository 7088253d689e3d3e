"""Affine quantization: the real numbers that stored integers stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from layertap.core.dtypes import Array


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

    def _broadcast(self, rank: int) -> tuple[Array, Array]:
        scales = np.asarray(self.scales, np.float64)
        zeros = np.asarray(self.zero_points, np.int64)
        if not self.per_channel:
            return scales.reshape(()), zeros.reshape(())
        shape = [1] * rank
        shape[self.axis] = -1
        return scales.reshape(shape), zeros.reshape(shape)

    def dequantize(self, raw: Array) -> Array:
        """Real values of ``raw`` (any integer dtype), float32, same shape."""
        scales, zeros = self._broadcast(raw.ndim)
        return ((raw.astype(np.int64) - zeros) * scales).astype(np.float32)

    def quantize(self, values: Array, dtype: np.dtype[Any]) -> Array:
        """``values`` rounded half away from zero to integers of ``dtype``, saturated."""
        scales, zeros = self._broadcast(values.ndim)
        scaled = np.asarray(values, np.float64) / scales
        rounded = np.trunc(scaled + np.copysign(0.5, scaled)) + zeros
        limits = np.iinfo(dtype)
        clipped: Array = np.clip(rounded, limits.min, limits.max).astype(dtype)
        return clipped

    def __str__(self) -> str:
        if self.per_channel:
            return f"per-channel[{len(self.scales)}] axis {self.axis}"
        return f"{self.scales[0]:.6g} * (q - {self.zero_points[0]})"
