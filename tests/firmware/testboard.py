"""A board for tests: board/*.c on this machine or on an emulated Cortex-M3.

The fixtures ``board`` and ``emulated_board`` are in tests/conftest.py. ``board.command(model)`` is
the command line of a board that runs ``model``, a .tflite of the operators in board/image.h, and
speaks on stdin and stdout::

    command = board.command(model, Orders(faults=[Fault("drop-byte", frame=7, byte=20)]))
    layertap.open(path, "device", port="exec:" + shlex.join(command))
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolchain import CORTEX_M3, MPS2, WARNINGS, compiled, emulator

from layertap.tflite.model import Operator, Subgraph, Tensor, TfliteModel, parse
from layertap.tflite.sizes import stored_bytes

SOURCES = Path(__file__).parent / "board"

# The order of enum operator_code in board/image.h.
_OPERATORS = (
    "CAST RESHAPE BROADCAST_TO RELU ADD SUB MAXIMUM MINIMUM FULLY_CONNECTED QUANTIZE DEQUANTIZE "
    "SVDF LESS IF WHILE"
)
OPERATORS = _OPERATORS.split()

# The order of enum fault_kind.
_FAULTS = (
    "none drop-byte flip-bit drop-frame swap text reset hang leave garbage reboot crlf fail deaf"
)
FAULTS = _FAULTS.split()

DTYPES = {
    "float32": 1,
    "int32": 2,
    "uint8": 3,
    "int64": 4,
    "bool": 6,
    "int16": 7,
    "complex64": 8,
    "int8": 9,
    "float16": 10,
    "float64": 11,
    "complex128": 12,
    "uint64": 13,
    "uint32": 16,
    "uint16": 17,
    "int4": 18,
    "bfloat16": 19,
}
"""Numbers of the element types on the wire."""

_HEADER = struct.Struct("<20I64s")
_FAULT = struct.Struct("<4I")
_SUBGRAPH = struct.Struct("<6I24i24i")
_TENSOR = struct.Struct("<4I8i2I")
_OPERATOR = struct.Struct("<3I8i8i2Ifi")


@dataclass(frozen=True)
class Fault:
    """``kind`` is one of FAULTS; ``frame`` counts what the board has sent since power-on (the
    inference for "fail"), ``byte`` is a position in it (how many for "garbage", milliseconds for
    "reboot", a position in what the host sends for "deaf"); ``every`` brings it back every so many
    frames."""

    kind: str
    frame: int = 0
    byte: int = 0
    every: int = 0

    def packed(self) -> bytes:
        return _FAULT.pack(FAULTS.index(self.kind), self.frame, self.byte, self.every)


@dataclass(frozen=True)
class Orders:
    """What a board is told besides its model.

    able: bits as in HELLO: 1 inputs and RUN, 2 SELECT, 4 RULE. Without 1 the board runs on its own,
    ``runs`` times (0 for ever), with ``pause`` milliseconds in between; element i of each input of
    inference n is then (i + n) % 7 - 3.
    taps: mask at the start, every tensor that is no constant if None.
    chatter: print a line after each start and inference.
    """

    able: int = 7
    receive: int = 1024
    rules: int = 4
    every: int = 1
    runs: int = 0
    pause: int = 0
    chatter: bool = False
    name: str = "test board"
    arena: int = 2048
    used: int = 1500
    taps: Sequence[int] | None = None
    faults: Sequence[Fault] = ()


@dataclass
class _Image:
    """The parts of an image; constants lie behind the tables, other tensors in the board's heap."""

    model: TfliteModel
    tables: list[bytes] = field(default_factory=lambda: [b"", b"", b""])
    constants: bytes = b""
    heap: int = 0

    def add(self, subgraph: Subgraph) -> None:
        first_tensor = len(self.tables[1]) // _TENSOR.size
        first_operator = len(self.tables[2]) // _OPERATOR.size
        for tensor in subgraph.tensors:
            self.tables[1] += self._tensor(tensor)
        for operator in subgraph.operators:
            self.tables[2] += _operator(operator, subgraph)
        counts = (first_tensor, len(subgraph.tensors), first_operator, len(subgraph.operators))
        lists = (*_padded(subgraph.inputs, 24), *_padded(subgraph.outputs, 24))
        sizes = (len(subgraph.inputs), len(subgraph.outputs))
        self.tables[0] += _SUBGRAPH.pack(*counts, *sizes, *lists)

    def _tensor(self, tensor: Tensor) -> bytes:
        size = stored_bytes(tensor.dtype, tensor.shape) or 0
        constant = len(tensor.data) > 0
        place = len(self.constants) if constant else self.heap
        if constant:
            data = self.model.data[tensor.data.start : tensor.data.stop]
            self.constants += data + bytes(-len(data) % 16)
        else:
            self.heap += size + -size % 16
        kind = (DTYPES[tensor.dtype], constant, tensor.variable, len(tensor.shape))
        return _TENSOR.pack(*kind, *_padded(tensor.shape, 8), size, place)


def image(data: bytes, orders: Orders) -> bytes:
    """The image of a model, for the board."""
    parts = _Image(parse(data))
    for subgraph in parts.model.subgraphs:
        parts.add(subgraph)
    assert parts.heap <= 1 << 20, "the board has 1 MiB for tensors"
    start = _HEADER.size + 4 * _FAULT.size
    places = list(itertools.accumulate(map(len, parts.tables), initial=start))
    tensors = places[2] - places[1]
    mask = _mask(parts.model, orders.taps)
    constants = places[3] + len(mask) + -(places[3] + len(mask)) % 16
    tables = parts.tables[0] + _moved(parts.tables[1], constants) + parts.tables[2] + mask
    body = tables + bytes(constants - start - len(tables)) + parts.constants
    counts = [len(table) // size.size for table, size in zip(parts.tables, _SIZES, strict=True)]
    assert tensors == counts[1] * _TENSOR.size
    header = _HEADER.pack(
        *(0x3150544C, start + len(body), zlib.crc32(data), len(data), *counts),
        *(orders.able, orders.receive, orders.rules, orders.every, orders.runs, orders.pause),
        *(orders.chatter, orders.arena, orders.used, *places),
        orders.name.encode(),
    )
    faults = [*orders.faults, *[Fault("none")] * (4 - len(orders.faults))]
    return header + b"".join(fault.packed() for fault in faults) + body


_SIZES = (_SUBGRAPH, _TENSOR, _OPERATOR)


def _moved(tensors: bytes, start: int) -> bytes:
    """The places of constants, counted from the start of the image."""
    rows = [list(row) for row in _TENSOR.iter_unpack(tensors)]
    for row in rows:
        row[-1] += start if row[1] else 0
    return b"".join(_TENSOR.pack(*row) for row in rows)


def _operator(operator: Operator, subgraph: Subgraph) -> bytes:
    scale, zero = 1.0, 0
    for i in (*operator.inputs, *operator.outputs):
        quantization = subgraph.tensors[i].quantization if i >= 0 else None
        if quantization is not None:
            scale, zero = quantization.scales[0], quantization.zero_points[0]
    tensors = (*_padded(operator.inputs, 8), *_padded(operator.outputs, 8))
    counts = (OPERATORS.index(operator.name), len(operator.inputs), len(operator.outputs))
    return _OPERATOR.pack(*counts, *tensors, *_padded(operator.calls, 2), scale, zero)


def _padded(numbers: Sequence[int], count: int) -> list[int]:
    assert len(numbers) <= count
    return [*numbers, *[0] * (count - len(numbers))]


def _mask(model: TfliteModel, taps: Sequence[int] | None) -> bytes:
    tensors = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors]
    if taps is None:
        taps = [bit for bit, tensor in enumerate(tensors) if not len(tensor.data)]
    bits = sum(1 << bit for bit in taps)
    return bits.to_bytes(math.ceil(len(tensors) / 8), "little")


@dataclass(frozen=True)
class Board:
    """A board that was built: ``program`` for this machine, or ``kernel`` for the emulator."""

    folder: Path
    program: Path | None = None
    kernel: Path | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def command(self, model: bytes, orders: Orders | None = None) -> list[str]:
        """The command line that starts it with ``model``; it ends when its stdin does, or when its
        ``runs`` are over, if it runs on this machine."""
        file = self.folder / f"image{next(self._numbers)}.bin"
        file.write_bytes(image(model, orders or Orders()))
        if self.kernel is None:
            return [str(self.program), str(file)]
        load = f"loader,file={file},addr=0x21000000,force-raw=on"
        return emulator(self.kernel, "-device", load)


_FILES = [SOURCES / f"{name}.c" for name in ("board", "interpreter", "elements", "link")]


def host_board(folder: Path, *more: str) -> Board:
    """Builds the board for this machine, with ``more`` flags of the compiler."""
    flags = ("-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O2", *WARNINGS, *more)
    program = compiled("gcc", [*_FILES, SOURCES / "host.c"], folder / "board", *flags)
    return Board(folder, program=program)


def emulated_board(folder: Path) -> Board:
    """Builds the board for an emulated Cortex-M3."""
    start = [SOURCES / "mps2.c", MPS2 / "startup.c", MPS2 / "uart.c"]
    link = ("-T", str(MPS2 / "memory.ld"), "-nostartfiles", "-Wl,--gc-sections")
    flags = ("-std=c11", *CORTEX_M3, *WARNINGS, *link)
    kernel = compiled(
        "arm-none-eabi-gcc", [*_FILES, *start], folder / "board.elf", *flags, includes=[MPS2]
    )
    return Board(folder, kernel=kernel)


__all__ = ["DTYPES", "Board", "Fault", "Orders", "emulated_board", "host_board", "image"]
