"""What a run read, wherever it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from layertap.core.dtypes import Array
from layertap.core.graph import Graph, TapPoint, format_shape
from layertap.core.protocols import Json, Rows
from layertap.core.select import Selector, no_such_tap, select
from layertap.errors import StoreError


class Capture:
    """The rows of one tap: one per sample, per batch or per run (``tap.per``). Each array that it
    gives is the caller's own.

    Slicing (``capture[10:20]``) gives fewer rows without reading them.
    """

    def __init__(self, tap: TapPoint, rows: Rows, span: range | None = None) -> None:
        self.tap = tap
        self._rows = rows
        self._span = range(len(rows)) if span is None else span

    def __len__(self) -> int:
        return len(self._span)

    def __getitem__(self, rows: slice) -> Capture:
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise TypeError("a capture takes a slice of consecutive rows, as in capture[10:20]")
        return Capture(self.tap, self._rows, self._span[rows])

    @property
    def samples(self) -> Array:
        """The number of the sample (or batch) each row belongs to, int64."""
        return self._rows.samples[self._span.start : self._span.stop]

    @property
    def raw(self) -> Any:
        """What the runtime held: an array (rows, ...), a list of arrays where shapes differ
        between samples, or the value itself for a tap that never changes. Raises StoreError
        when what is on disk is damaged, or there is no such value yet."""
        rows = self._rows.read(self._span.start, self._span.stop)
        if self.tap.per != "run":
            return rows
        if not len(rows):
            raise StoreError(
                f"the run holds no value of {self.tap.name!r}",
                hint="it ended before its first batch; capture it anew, or go on with resume",
            )
        return np.asarray(rows)[0, ...]

    @property
    def values(self) -> Any:
        """The real numbers that ``raw`` stands for: float32 where the tap is quantized. Raises
        StoreError as ``raw`` does, and where the scales are not those of such an array."""
        raw = self.raw
        if self.tap.quantization is None:
            return raw
        if isinstance(raw, list):
            return [self._real(row[None])[0] for row in raw]
        return self._real(raw)

    def _real(self, rows: Array) -> Array:
        """Real values of rows, or of the one value of a tap that never changes."""
        tap, quantization = self.tap, self.tap.quantization
        assert quantization is not None
        if not quantization.per_channel:
            return quantization.dequantize(rows)
        # Channels are counted along an axis of the tensor, which may lie elsewhere in rows.
        before = tap.per == "batch" or (tap.per == "sample" and quantization.axis < tap.batch_axis)
        axis, channels = quantization.axis + before, len(quantization.scales)
        of_samples = tap.per == "sample" and quantization.axis == tap.batch_axis
        if of_samples or axis >= rows.ndim or rows.shape[axis] != channels:
            raise StoreError(
                f"the {channels} scales of {tap.name!r} do not fit its values",
                hint="read .raw, which is what the runtime held",
            )
        return replace(quantization, axis=axis).dequantize(rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.values, dtype)

    def __repr__(self) -> str:
        shape = format_shape(self.tap.row_shape)
        rows = f"{len(self)} rows of" if len(self._rows) else "never ran,"
        return f"<Capture {self.tap.name!r}: {rows} {shape} {self.tap.dtype}>"


class Run(Mapping[str, Capture]):
    """Captures by tap name (or native index), with the run's provenance.

    ``complete`` is False for a run that was interrupted; what it holds is whole samples.
    ``path`` is where it is kept on disk, None in memory.
    """

    def __init__(
        self,
        rows: Sequence[tuple[TapPoint, Rows]],
        provenance: Mapping[str, Json],
        *,
        samples: int,
        complete: bool = True,
        path: Path | None = None,
    ) -> None:
        self._rows = {tap.name: rows for tap, rows in rows}
        self.taps = Graph(tap for tap, _ in rows)
        self.provenance = provenance
        self.samples = samples
        self.complete = complete
        self.path = path

    def __getitem__(self, name: str) -> Capture:
        own = self.taps.canonical(name)
        for tap in self.taps if own not in self._rows else (self.taps[own],):
            if own in (tap.name, tap.native):
                return Capture(tap, self._rows[tap.name])
        raise no_such_tap(self.taps, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, selector: Selector) -> dict[str, Capture]:
        """Captures that a selector matches. Raises NoSuchTap with near names."""
        return {tap.name: self[tap.name] for tap in select(self.taps, selector)}

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        state = "" if self.complete else ", incomplete"
        return f"<Run {where}: {len(self)} taps, {self.samples} samples{state}>\n{self.taps}"


class Summary:
    """Count, smallest, largest, mean and standard deviation of a capture's finite real values,
    gathered in one pass over blocks of rows, so that memory stays bounded (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.not_finite = 0
        self.zeros = 0
        self.minimum = float("inf")
        self.maximum = float("-inf")
        self.mean = 0.0
        self._squares = 0.0

    @property
    def std(self) -> float:
        return float(np.sqrt(self._squares / self.count)) if self.count else float("nan")

    def add(self, values: Array) -> None:
        """Take in an array of any real dtype and shape."""
        flat = np.abs(values) if values.dtype.kind == "c" else values
        flat = flat.astype(np.float64, copy=False).ravel()
        finite = flat[np.isfinite(flat)]
        self.not_finite += flat.size - finite.size
        if not finite.size:
            return
        mean, count = float(finite.mean()), self.count + finite.size
        delta = mean - self.mean
        self._squares += float(((finite - mean) ** 2).sum())
        self._squares += delta * delta * self.count * finite.size / count
        self.mean += delta * finite.size / count
        self.count = count
        self.zeros += int(np.count_nonzero(finite == 0))
        self.minimum = min(self.minimum, float(finite.min()))
        self.maximum = max(self.maximum, float(finite.max()))


def summarize(capture: Capture, *, block_bytes: int = 64 << 20) -> Summary:
    """Statistics over all rows of ``capture``, read in blocks of about ``block_bytes``.

    For complex captures they are those of the magnitudes.
    """
    summary = Summary()
    row = capture.tap.row_bytes or 0
    step = max(1, block_bytes // row if row else 1)
    if capture.tap.per == "run":
        summary.add(np.asarray(capture.values))
        return summary
    for start in range(0, len(capture), step):
        values = capture[start : start + step].values
        for block in values if isinstance(values, list) else [values]:
            summary.add(block)
    return summary


__all__ = ["Capture", "Run", "Summary", "summarize"]
