"""What of a tensor a board sends: all of it, a slice, a summary or a histogram."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.graph import COMPUTED, Graph, TapPoint
from layertap.core.quantization import Quantization
from layertap.core.select import select
from layertap.errors import PlanError, RuntimeFailure
from layertap.firmware.wire.assembly import Place, Value
from layertap.firmware.wire.messages import FORMS, HISTOGRAM, SLICE, SUMMARY, WHOLE, Rule
from layertap.tflite.graph import MAIN

Texts = str | Mapping[str, str] | None
"""One text for every tap that can be sent so, or texts by selector."""

_SLICE = re.compile(r"(\d*):(\d+)")
_HISTOGRAM = re.compile(r"histogram[ :](\d+)[ :](\S+?)[ :](\S+)")
_BINS_LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class Form:
    """``kind`` is one of layertap.firmware.wire.messages' forms. A slice has ``first`` and
    ``count`` (elements), a histogram ``count`` bins between the real numbers ``low`` and ``high``.
    """

    kind: int = WHOLE
    first: int = 0
    count: int = 0
    low: float = 0.0
    high: float = 0.0

    def described(self) -> str:
        """As the option is written."""
        if self.kind == SLICE:
            return f"{self.first}:{self.first + self.count}"
        if self.kind == HISTOGRAM:
            return f"histogram {self.count} {self.low:g} {self.high:g}"
        return FORMS[self.kind]


@dataclass(frozen=True, slots=True)
class Reading:
    """How one tap is read: ``tap`` is what comes out, ``whole`` the tensor itself, ``bit`` its bit
    in the mask."""

    tap: TapPoint
    whole: TapPoint
    bit: int
    form: Form = Form()

    @property
    def place(self) -> Place:
        return self.whole.subgraph, self.whole.index

    def rule(self, every: int = 1) -> Rule | None:
        """The rule that the board needs for it; limits in raw numbers."""
        form = self.form
        if form.kind == WHOLE:
            return None
        low, high = (_raw(limit, self.whole.quantization) for limit in (form.low, form.high))
        a, b = (form.first, form.count) if form.kind == SLICE else (form.count, 0)
        return Rule(self.bit + 1, every, form=form.kind, a=a, b=b, low=low, high=high)

    def value(self, values: Sequence[Value]) -> Array | None:
        """What the tap holds, from what was sent; None for a tensor of the main graph that was
        not sent. Raises RuntimeFailure for what does not fit the model or the form."""
        each = [self._one(value) for value in values]
        if self.whole.subgraph != MAIN:
            shape = [size or 0 for size in (self.tap.shape or ())[1:]]
            return np.stack(each) if each else np.empty((0, *shape), numpy_dtype(self.tap.dtype))
        if not each:
            return None
        # A state that several operators use is sent after each of them; the last one stays.
        return each[-1][None] if self._leads_with_batch() else each[-1]

    def _leads_with_batch(self) -> bool:
        return self.form.kind != WHOLE and self.tap.per == "sample"

    def _one(self, value: Value) -> Array:
        if (value.form, value.dtype) != (self.form.kind, self.whole.dtype):
            raise RuntimeFailure(
                f"the board sends {self.tap.name!r} as a {FORMS[value.form]} of {value.dtype}, "
                f"not as a {FORMS[self.form.kind]} of {self.whole.dtype}",
                hint="its firmware fixes the form: open it with the same reduce= or slices=",
            )
        if self.form.kind == SUMMARY:
            return _real(value.array, self.whole.quantization)
        if self.form.kind != WHOLE:
            return value.array
        shape = (self.whole.shape or ())[int(self.whole.subgraph != MAIN) :]
        known = [size for size in shape if size is not None]
        # Some kernels fold or spread dimensions of one; the file's are those of every runtime.
        fits = len(known) == len(shape) and value.array.size == math.prod(known)
        return value.array.reshape(known) if fits else value.array


def readings(
    graph: Graph, bits: Mapping[Place, int], slices: Texts = None, reduce: Texts = None
) -> dict[str, Reading]:
    """How each tap of ``graph`` that a board computes is read, by name; ``bits`` are the bits of
    the mask. Raises PlanError and SelectionError."""
    forms: dict[str, Form] = {}
    for option, given, parse in (("slices", slices, _slice), ("reduce", reduce, _reduction)):
        for selector, text in _pairs(given, option):
            form = parse(text)
            for tap in _chosen(graph, selector):
                if isinstance(given, str) and _unfit(tap, form):
                    continue
                if tap.name in forms:
                    raise PlanError(
                        f"{tap.name!r} is given two forms: {forms[tap.name].described()}, {text}",
                        hint="each selector of slices= and reduce= must match other taps",
                    )
                forms[tap.name] = form
    found = {}
    for tap in graph:
        if tap.kind != "weight" and (tap.subgraph, tap.index) in bits:
            form = forms.get(tap.name, Form())
            bit = bits[tap.subgraph, tap.index]
            found[tap.name] = Reading(formed(tap, form), tap, bit, form)
    return found


def formed(tap: TapPoint, form: Form) -> TapPoint:
    """``tap`` as it is once only ``form`` of it is sent. Raises PlanError where it has none."""
    if form.kind == WHOLE:
        return tap
    if why := _unfit(tap, form):
        raise PlanError(
            f"{tap.name!r} cannot be sent as {form.described()}: {why}",
            hint="leave it out of slices= and reduce=",
        )
    count = 3 if form.kind == SUMMARY else form.count
    dtype = {SUMMARY: "float32", HISTOGRAM: "uint32", SLICE: tap.dtype}[form.kind]
    kept = tap.quantization if form.kind == SLICE else None
    shape: tuple[int | None, ...] = (count,)
    per = "batch" if tap.per == "sample" and tap.shape and tap.shape[0] != 1 else tap.per
    if tap.subgraph != MAIN:
        shape = (None, count)
    elif per == "sample":
        shape = (1, count)
    return replace(tap, dtype=dtype, shape=shape, quantization=kept, per=per)


def _unfit(tap: TapPoint, form: Form) -> str:
    """Why a tap cannot be sent so; empty when it can."""
    shape = (tap.shape or ())[int(tap.subgraph != MAIN) :]
    known = [size for size in shape if size is not None]
    if tap.quantization is not None and tap.quantization.per_channel:
        return "its channels have scales of their own"
    if tap.dtype == "int4":
        return "int4 is sent whole only"
    if tap.dtype.startswith("complex") and form.kind != SLICE:
        return "its numbers are complex"
    elements = math.prod(known)
    if form.kind == SLICE and len(known) == len(shape) and form.first + form.count > elements:
        return f"it has {elements:,} elements"
    return ""


def _chosen(graph: Graph, selector: str) -> Iterable[TapPoint]:
    taps = select(graph, selector)
    return [tap for tap in taps if tap.kind in (*COMPUTED, "argument") and not tap.untappable]


def _pairs(given: Texts, option: str) -> Iterable[tuple[str, str]]:
    if given is None:
        return ()
    if isinstance(given, str):
        return [("*", given)]
    if isinstance(given, Mapping) and all(isinstance(text, str) for text in given.values()):
        return given.items()
    example = "'0:100'" if option == "slices" else "'summary'"
    raise PlanError(
        f"{option} is {given!r}",
        hint=f"give one text for all taps or one by selector: {option}={{'*conv*': {example}}}",
    )


def _slice(text: str) -> Form:
    found = _SLICE.fullmatch(text)
    first, stop = (int(found[1] or 0), int(found[2])) if found else (0, 0)
    if stop <= first:
        raise PlanError(
            f"{text!r} is no slice of a tensor", hint="FIRST:STOP in elements, as in 0:100"
        )
    return Form(SLICE, first, stop - first)


def _reduction(text: str) -> Form:
    if text == FORMS[SUMMARY]:
        return Form(SUMMARY)
    found = _HISTOGRAM.fullmatch(text)
    try:
        bins, low, high = (int(found[1]), float(found[2]), float(found[3])) if found else (0, 0, 0)
    except ValueError:
        bins, low, high = 0, 0, 0
    if not 0 < bins <= _BINS_LIMIT or not low < high < float("inf") or low == float("-inf"):
        raise PlanError(
            f"{text!r} is no reduction",
            hint="'summary' (smallest, largest, mean) or 'histogram BINS LOW HIGH', in real "
            "numbers, as in 'histogram 64 -1 1'",
        )
    return Form(HISTOGRAM, 0, bins, low, high)


def _raw(real: float, quantization: Quantization | None) -> float:
    if quantization is None:
        return real
    return real / quantization.scales[0] + quantization.zero_points[0]


def _real(raw: Array, quantization: Quantization | None) -> Array:
    if quantization is not None:
        raw = (raw - quantization.zero_points[0]) * np.float64(quantization.scales[0])
    return raw.astype(np.float32)


__all__ = ["Form", "Reading", "Texts", "formed", "readings"]
