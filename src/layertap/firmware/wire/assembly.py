"""Pieces of tensors put together to tensors, and tensors to inferences."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from layertap.core.dtypes import Array
from layertap.core.units import format_bytes
from layertap.firmware.wire.decoder import Damage, Event, Kind
from layertap.firmware.wire.elements import from_bytes, stored_bytes
from layertap.firmware.wire.messages import (
    HISTOGRAM,
    SLICE,
    STARTED,
    SUMMARY,
    Done,
    Hello,
    Tensor,
)

Place = tuple[int, int]
"""Subgraph, and index of the tensor within it."""
_PIECE_COST = 512
"""Bytes that an array and what belongs to it take beside the elements, about."""
INFERENCE_LIMIT = 1 << 30
"""Bytes that the tensors of one inference may take in memory together."""


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor of one iteration, as it was sent.

    ``array`` is the caller's to keep and to change. By form: the whole tensor in shape ``dims``
    and dtype ``dtype`` (int4 one element per byte, as ml_dtypes.int4); a slice, its ``count``
    elements from ``first``, flat; a summary, float64 (3,): smallest, largest and mean of the raw
    numbers; a histogram, uint32 (bins,) between ``low`` and ``high``.
    """

    array: Array
    dtype: str
    dims: tuple[int, ...]
    form: int
    first: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Inference:
    """What a board sent of one inference; only if ``whole`` is it all that it sent.

    ``status`` is the board's ``TfLiteStatus`` (0 is fine), None if its end never came. ``tensors``
    has the values of each tensor by iteration, in the order in which they were sent. ``why`` says
    in a few words what is missing where it is not whole.
    """

    number: int
    status: int | None
    tensors: dict[Place, list[Value]]
    whole: bool
    why: str


@dataclass(slots=True)
class _Open:
    """An inference that has not ended yet."""

    number: int
    tensors: dict[Place, list[Value]] = field(default_factory=dict)
    frames: int = 0
    count: int = 0
    bytes: int = 0
    why: str = ""
    lossy: bool = False
    header: Tensor | None = None
    data: bytearray = field(default_factory=bytearray)


class Assembly:
    """Takes the events of a :class:`Decoder` and gives inferences when they have ended.

    ``expected`` gives, where it is known, how many bytes a whole tensor has; one that claims
    another number is refused. Memory is taken only for bytes that have come, at most ``limit`` of
    them for an inference.
    """

    def __init__(
        self, expected: Mapping[Place, int] | None = None, *, limit: int = INFERENCE_LIMIT
    ) -> None:
        self.whole = 0
        """Inferences that came whole."""
        self.broken = 0
        """Inferences that did not."""
        self._expected = expected or {}
        self._limit = limit
        self._open: _Open | None = None
        self._ended: int | None = None
        self._damage = ""

    def take(self, event: Event) -> Inference | None:
        """The inference that ``event`` ends, whole or not; None when it ends none."""
        if isinstance(event, Tensor):
            return self._tensor(event)
        if isinstance(event, Done):
            return self._done(event)
        if isinstance(event, Hello) and event.reason == STARTED:
            return self.drop("the board started again in the middle of it")
        if isinstance(event, Damage) and event.kind is not Kind.NOISE:
            self._damage = self._damage or event.message
            if self._open is not None and event.kind in (Kind.LATE, Kind.REPEATED):
                self._open.why = self._open.why or event.message
            elif self._open is not None and event.kind is Kind.LOST:
                self._open.lossy = True
        return None

    def drop(self, why: str) -> Inference | None:
        """Give up the inference that is open; None when there is none."""
        self._damage, damage = "", self._damage
        self._ended = None
        if self._open is None:
            return None
        found, self._open = self._open, None
        return self._end(found, None, found.why or why, damage)

    def _tensor(self, piece: Tensor) -> Inference | None:
        ended = None
        if self._open is not None and self._open.number != piece.inference:
            ended = self.drop("its end did not come")
        if self._open is None:
            self._open = _Open(piece.inference)
            if piece.inference == self._ended:
                self._open.why = "a part of it came behind its end"
        self._open.frames += 1
        if not self._open.why:
            self._open.why = self._piece(self._open, piece)
        return ended

    def _piece(self, into: _Open, piece: Tensor) -> str:
        """Add a piece to its tensor; what is wrong with it, or an empty text."""
        if piece.offset == 0:
            if into.header is not None:
                return _hole(into.header, len(into.data))
            if why := self._refused(into, piece):
                return why
            into.header, into.data = piece, bytearray()
        elif into.header is None or into.header.header != piece.header:
            return _hole(into.header or piece, len(into.data))
        if piece.offset != len(into.data):
            return _hole(piece, len(into.data))
        into.bytes += len(piece.payload) + _PIECE_COST
        if into.bytes > self._limit:
            into.tensors.clear()
            return f"its tensors take more than {format_bytes(self._limit)}"
        into.data += piece.payload
        if len(into.data) == piece.total:
            values = into.tensors.setdefault((piece.subgraph, piece.tensor), [])
            # A state that two operators change is sent by both: the later value holds.
            values[piece.iteration : piece.iteration + 1] = [_value(piece, into.data)]
            into.count += 1
            into.header, into.data = None, bytearray()
        return ""

    def _refused(self, into: _Open, piece: Tensor) -> str:
        place = piece.subgraph, piece.tensor
        if piece.iteration > len(into.tensors.get(place, ())):
            return f"{_name(piece)} lacks an iteration before number {piece.iteration}"
        whole = stored_bytes(piece.dtype, piece.elements)
        expected = self._expected.get(place, whole)
        return "" if whole == expected else f"{_name(piece)} has {whole:,} bytes, not {expected:,}"

    def _done(self, done: Done) -> Inference:
        unrelated = self._open is not None and self._open.number != done.inference
        if self._open is None or unrelated:
            self.broken += unrelated
            self._open = _Open(done.inference)
        found, self._open = self._open, None
        damage, self._damage = self._damage, ""
        if not found.why and found.header is not None:
            found.why = _hole(found.header, len(found.data))
        if not found.why and (found.frames, found.count) != (done.frames, done.tensors):
            found.why = f"{found.frames:,} of its {done.frames:,} frames came"
        if not found.why and found.lossy:
            # The counts fit; yet a board that was reset unseen would look just like this.
            found.why = "frames are missing in the middle of it"
        self._ended = done.inference
        return self._end(found, done.status, found.why, damage)

    def _end(self, found: _Open, status: int | None, why: str, damage: str) -> Inference:
        if why:
            self.broken += 1
        else:
            self.whole += 1
        said = f"{why}: {damage}" if why and damage not in ("", why) else why
        return Inference(found.number, status, found.tensors, not why, said)


def _name(piece: Tensor) -> str:
    return f"tensor {piece.tensor} of subgraph {piece.subgraph}"


def _hole(piece: Tensor, have: int) -> str:
    return f"of {_name(piece)} there are {have:,} of {piece.total:,} bytes"


def _value(piece: Tensor, data: bytearray) -> Value:
    if piece.form == SUMMARY:
        at = len(data) - 4
        limits = from_bytes(data[:at], piece.dtype, 2).astype(np.float64)
        array: Array = np.array([*limits, struct.unpack_from("<f", data, at)[0]], np.float64)
    elif piece.form == HISTOGRAM:
        array = from_bytes(data, "uint32", piece.count)
    elif piece.form == SLICE:
        array = from_bytes(data, piece.dtype, piece.count)
    else:
        array = from_bytes(data, piece.dtype, piece.elements).reshape(piece.dims)
    form = piece.form, piece.first, piece.low, piece.high
    return Value(array, piece.dtype, piece.dims, *form)


__all__ = ["INFERENCE_LIMIT", "Assembly", "Inference", "Place", "Value"]
