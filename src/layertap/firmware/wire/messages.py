"""The messages of wire version 1, and their bytes; fields are those of docs/wire-format.md."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from layertap.errors import WireError
from layertap.firmware.wire.elements import COMPLEX, NUMBERS, dtype_name, stored_bytes
from layertap.firmware.wire.frames import to_frame, varint
from layertap.firmware.wire.reader import Reader

WIRE = 1
"""Version of the format that this package reads and writes."""
STARTED, ASKED, REPEATED = range(3)
"""Why a HELLO was sent."""
TAKES_INPUTS, TAKES_SELECT, TAKES_RULE = 1, 2, 4
"""Bits of what a board is able to do."""
WHOLE, SLICE, SUMMARY, HISTOGRAM = range(4)
"""Forms in which a tensor is sent."""
FORMS = ("whole", "slice", "summary", "histogram")
OK, INPUTS_DAMAGED, OUT_OF_RANGE, NO_ROOM, UNABLE, FAILED = range(6)
"""Status of an ANSWER."""
RESETS_STATE = 1
"""Flag of a RUN."""
NAME_BYTES = 63
RANK_LIMIT = 15
BYTES_LIMIT = 1 << 32
"""Bytes of a whole tensor; no offset reaches further."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a board is and runs. ``model`` is the CRC-32 of the .tflite, ``size`` its bytes,
    ``mask`` has one bit per tensor of all subgraphs: see :func:`mask_bits`."""

    TYPE: ClassVar[int] = 1

    reason: int
    able: int
    receive: int
    rules: int
    model: int
    size: int
    tensors: int
    arena: int
    used: int
    every: int
    name: str
    mask: bytes

    def fields(self) -> bytes:
        name = self.name.encode()
        if len(name) > NAME_BYTES or len(self.mask) != (self.tensors + 7) // 8:
            raise _unfit("HELLO", "its name has at most 63 bytes, its mask one bit per tensor")
        return b"".join(
            (
                bytes((WIRE, self.reason)),
                _varints(self.able, self.receive, self.rules),
                self.model.to_bytes(4, "little"),
                _varints(self.size, self.tensors, self.arena, self.used, self.every, len(name)),
                name,
                self.mask,
            )
        )

    @classmethod
    def read(cls, reader: Reader) -> Hello:
        wire = reader.u8()
        if wire != WIRE:
            raise other_wire(wire)
        reason, able = reader.u8(), reader.varint()
        receive, rules = reader.varint(), reader.varint()
        model = reader.u32()
        size, tensors, arena, used, every = (reader.varint() for _ in range(5))
        name = reader.take(reader.varint()).decode("utf-8", "replace")
        mask = reader.rest()
        if len(mask) != (tensors + 7) // 8:
            raise _unfit("HELLO", f"its mask has {len(mask)} bytes for {tensors} tensors")
        return cls(
            reason, able, receive, rules, model, size, tensors, arena, used, every, name, mask
        )


@dataclass(frozen=True, slots=True)
class Tensor:
    """One piece of one tensor. ``dims`` are those of the whole tensor; ``offset`` and ``payload``
    count bytes. ``first`` and ``count`` belong to a slice (elements), ``count`` (bins), ``low``
    and ``high`` to a histogram."""

    TYPE: ClassVar[int] = 2

    inference: int
    subgraph: int
    tensor: int
    iteration: int
    dtype: str
    dims: tuple[int, ...]
    offset: int
    payload: bytes
    form: int = WHOLE
    first: int = 0
    count: int = 0
    low: float = 0.0
    high: float = 0.0

    @property
    def elements(self) -> int:
        """Elements of the whole tensor."""
        return math.prod(self.dims)

    @property
    def total(self) -> int:
        """Bytes of the payload that all pieces have together."""
        if self.form == SLICE:
            return stored_bytes(self.dtype, self.count)
        if self.form == SUMMARY:
            return stored_bytes(self.dtype, 2) + 4
        return 4 * self.count if self.form == HISTOGRAM else stored_bytes(self.dtype, self.elements)

    @property
    def header(self) -> tuple[object, ...]:
        """What all pieces of one tensor have in common, byte for byte."""
        limits = struct.pack("<ff", self.low, self.high)
        place = (self.inference, self.subgraph, self.tensor, self.iteration)
        return (*place, self.dtype, self.dims, self.form, self.first, self.count, limits)

    def fields(self) -> bytes:
        self._check()
        form = b""
        if self.form == SLICE:
            form = _varints(self.first, self.count)
        elif self.form == HISTOGRAM:
            form = varint(self.count) + struct.pack("<ff", self.low, self.high)
        return b"".join(
            (
                _varints(self.inference, self.subgraph, self.tensor, self.iteration),
                bytes((NUMBERS[self.dtype], self.form << 4 | len(self.dims))),
                _varints(*self.dims),
                form,
                varint(self.offset),
                self.payload,
            )
        )

    @classmethod
    def read(cls, reader: Reader) -> Tensor:
        inference, subgraph, tensor, iteration = (reader.varint() for _ in range(4))
        dtype, form_and_rank = dtype_name(reader.u8()), reader.u8()
        form = form_and_rank >> 4
        dims = tuple(reader.varint() for _ in range(form_and_rank & 15))
        first, count, low, high = 0, 0, 0.0, 0.0
        if form == SLICE:
            first, count = reader.varint(), reader.varint()
        elif form == HISTOGRAM:
            count, low, high = reader.varint(), reader.f32(), reader.f32()
        offset, payload = reader.varint(), reader.rest()
        place = (inference, subgraph, tensor, iteration)
        piece = cls(*place, dtype, dims, offset, payload, form, first, count, low, high)
        piece._check()
        return piece

    def _check(self) -> None:
        if not 0 <= self.form < len(FORMS):
            raise _unfit("TENSOR", f"it has form {self.form}")
        if len(self.dims) > RANK_LIMIT or self.dtype not in NUMBERS:
            raise _unfit("TENSOR", f"it has {len(self.dims)} dimensions of {self.dtype}")
        if (self.form != WHOLE and self.dtype == "int4") or (
            self.form in (SUMMARY, HISTOGRAM) and self.dtype in COMPLEX
        ):
            raise _unfit("TENSOR", f"{self.dtype} is not sent as a {FORMS[self.form]}")
        held = stored_bytes(self.dtype, math.prod(size for size in self.dims if size))
        if held > BYTES_LIMIT:
            raise _unfit("TENSOR", f"its dimensions {self.dims} are those of {held:,} bytes")
        if self.form == SLICE and self.first + self.count > self.elements:
            raise _unfit("TENSOR", f"its slice ends past its {self.elements:,} elements")
        if self.form == HISTOGRAM and self.count == 0:
            raise _unfit("TENSOR", "its histogram has no bins")
        if self.offset + len(self.payload) > self.total:
            raise _unfit(
                "TENSOR",
                f"{len(self.payload):,} bytes at {self.offset:,} do not fit into {self.total:,}",
            )


@dataclass(frozen=True, slots=True)
class Done:
    """An inference has ended with a ``TfLiteStatus``, having sent so many tensors and frames."""

    TYPE: ClassVar[int] = 3

    inference: int
    status: int
    tensors: int
    frames: int

    def fields(self) -> bytes:
        return varint(self.inference) + bytes((self.status,)) + _varints(self.tensors, self.frames)

    @classmethod
    def read(cls, reader: Reader) -> Done:
        done = cls(reader.varint(), reader.u8(), reader.varint(), reader.varint())
        reader.end()
        return done


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the command of type ``command`` and sequence ``of``."""

    TYPE: ClassVar[int] = 4

    command: int
    of: int
    status: int
    text: str = ""

    def fields(self) -> bytes:
        return bytes((self.command, self.of, self.status)) + self.text.encode()

    @classmethod
    def read(cls, reader: Reader) -> Answer:
        command, of, status = reader.u8(), reader.u8(), reader.u8()
        return cls(command, of, status, reader.rest().decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Ask:
    """The host wants a HELLO."""

    TYPE: ClassVar[int] = 65

    def fields(self) -> bytes:
        return b""

    @classmethod
    def read(cls, reader: Reader) -> Ask:
        reader.end()
        return cls()


@dataclass(frozen=True, slots=True)
class Select:
    """Which tensors are sent, every so many inferences: bytes of the mask from ``first`` on."""

    TYPE: ClassVar[int] = 66

    every: int
    first: int
    mask: bytes

    def fields(self) -> bytes:
        return _varints(self.every, self.first) + self.mask

    @classmethod
    def read(cls, reader: Reader) -> Select:
        return cls(reader.varint(), reader.varint(), reader.rest())


@dataclass(frozen=True, slots=True)
class Rule:
    """In which form, and every how many inferences, one tensor is sent; ``tap`` is its bit + 1,
    or 0 to forget all rules. Slice: ``a`` first, ``b`` count. Histogram: ``a`` bins."""

    TYPE: ClassVar[int] = 67

    tap: int
    every: int = 1
    form: int = WHOLE
    a: int = 0
    b: int = 0
    low: float = 0.0
    high: float = 0.0

    def fields(self) -> bytes:
        limits = struct.pack("<ff", self.low, self.high)
        return (
            _varints(self.tap, self.every) + bytes((self.form,)) + _varints(self.a, self.b) + limits
        )

    @classmethod
    def read(cls, reader: Reader) -> Rule:
        tap, every, form = reader.varint(), reader.varint(), reader.u8()
        rule = cls(tap, every, form, reader.varint(), reader.varint(), reader.f32(), reader.f32())
        reader.end()
        return rule


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes of the model's input number ``input``, from byte ``offset`` on."""

    TYPE: ClassVar[int] = 68

    input: int
    offset: int
    data: bytes

    def fields(self) -> bytes:
        return _varints(self.input, self.offset) + self.data

    @classmethod
    def read(cls, reader: Reader) -> Input:
        return cls(reader.varint(), reader.varint(), reader.rest())


@dataclass(frozen=True, slots=True)
class Run:
    """Run the inputs that were sent, whose CRC-32 is ``check``; see :data:`RESETS_STATE`."""

    TYPE: ClassVar[int] = 69

    inference: int
    flags: int
    check: int

    def fields(self) -> bytes:
        return varint(self.inference) + bytes((self.flags,)) + self.check.to_bytes(4, "little")

    @classmethod
    def read(cls, reader: Reader) -> Run:
        run = cls(reader.varint(), reader.u8(), reader.u32())
        reader.end()
        return run


FromBoard = Hello | Tensor | Done | Answer
FromHost = Ask | Select | Rule | Input | Run
Message = FromBoard | FromHost

_KINDS: tuple[type[Message], ...] = (Hello, Tensor, Done, Answer, Ask, Select, Rule, Input, Run)
_BY_TYPE: dict[int, type[Message]] = {kind.TYPE: kind for kind in _KINDS}


def pack(message: Message, sequence: int) -> bytes:
    """The frame of ``message``, ``00 F5 ... 00``; ``sequence`` is taken modulo 256.

    Raises WireError when the message does not fit into a frame or a field into its type.
    """
    try:
        fields = message.fields()
    except (OverflowError, ValueError, struct.error) as error:
        raise _unfit(type(message).__name__.upper(), str(error)) from error
    return to_frame(bytes((message.TYPE, sequence & 0xFF)) + fields)


def unpack(content: bytes) -> Message:
    """The message in the content of a frame (type, sequence, fields). Raises WireError."""
    kind = _BY_TYPE.get(content[0]) if len(content) >= 2 else None
    if kind is None:
        raise WireError(
            f"a message of type {content[0] if content else 'nothing'} is not known",
            hint="the firmware may be newer than this layertap: update layertap",
        )
    return kind.read(Reader(content, 2))


def mask_bytes(bits: Iterable[int], tensors: int) -> bytes:
    """The mask of ``tensors`` bits in which those numbered ``bits`` are set, bit 0 lowest."""
    mask = bytearray((tensors + 7) // 8)
    for bit in bits:
        mask[bit // 8] |= 1 << bit % 8
    return bytes(mask)


def mask_bits(mask: bytes) -> list[int]:
    """The numbers of the bits that are set in ``mask``, ascending."""
    return [8 * at + bit for at, byte in enumerate(mask) for bit in range(8) if byte >> bit & 1]


def other_wire(version: int) -> WireError:
    """The error that says that a board speaks wire ``version``."""
    older, newer = "update layertap", "write the firmware again with `layertap firmware`"
    return WireError(
        f"the board speaks wire version {version}, this layertap {WIRE}",
        hint=older if version > WIRE else newer,
    )


def wire_version(content: bytes) -> int | None:
    """The wire version that a HELLO names, whatever follows; None for other messages."""
    return content[2] if len(content) >= 3 and content[0] == Hello.TYPE else None


def _varints(*values: int) -> bytes:
    return b"".join(map(varint, values))


def _unfit(kind: str, why: str) -> WireError:
    return WireError(f"a {kind} is not valid: {why}", hint="docs/wire-format.md describes it")


__all__ = [
    "Answer",
    "Ask",
    "Done",
    "Hello",
    "Input",
    "Message",
    "Rule",
    "Run",
    "Select",
    "Tensor",
    "mask_bits",
    "mask_bytes",
    "pack",
    "unpack",
]
