"""The golden vectors of the wire format. Run as a program, this writes docs/wire-v1.txt.

Nothing changes from run to run: the only random numbers are those of a seeded generator.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from layertap.firmware.wire.elements import NUMBERS
from layertap.firmware.wire.frames import to_frame
from layertap.firmware.wire.messages import (
    HISTOGRAM,
    SLICE,
    SUMMARY,
    Answer,
    Ask,
    Done,
    Hello,
    Input,
    Message,
    Rule,
    Run,
    Select,
    Tensor,
    mask_bytes,
    pack,
)

FILE = Path(__file__).resolve().parents[3] / "docs" / "wire-v1.txt"
PIECE = 4096
MOST = 0xFFFFFFFF
HEADER = """\
# Golden vectors of the wire format, version 1: see wire-format.md.
#
# A line "name key=value ..." is a message, the lines "= hex" behind it are its frames. Of a tensor
# there are as many frames as pieces of at most piece bytes, with sequence counting up. A "bad" line
# is followed by a frame that is to be refused.
#
# Numbers are decimal; dims are separated by commas, none for a scalar; data, mask, name (UTF-8),
# text (UTF-8), low and high (f32) are bytes in hex, in the order of the wire. A value may be empty.
# No line is longer than 20,000 characters. Written by tests/firmware/wire/golden.py.
"""

ELEMENTS = {
    "float32": (4, struct.pack("<4f", 1.5, -0.0, float("inf"), 1e-45)),
    "int32": (3, struct.pack("<3i", -(2**31), 0, 2**31 - 1)),
    "uint8": (5, bytes((0, 1, 127, 128, 255))),
    "int64": (2, struct.pack("<2q", -(2**63), 2**63 - 1)),
    "bool": (3, bytes((1, 0, 1))),
    "int16": (3, struct.pack("<3h", -32768, -1, 32767)),
    "complex64": (2, struct.pack("<4f", 1.0, -2.0, 0.5, 0.25)),
    "int8": (6, struct.pack("<6b", -128, -1, 0, 1, 42, 127)),
    "float16": (3, struct.pack("<3e", 1.0, -65504.0, 6e-8)),
    "float64": (2, struct.pack("<2d", 3.141592653589793, -5e-324)),
    "complex128": (1, struct.pack("<2d", 1.0, -1.0)),
    "uint64": (2, struct.pack("<2Q", 0, 2**64 - 1)),
    "uint32": (2, struct.pack("<2I", 1, 2**32 - 1)),
    "uint16": (2, struct.pack("<2H", 245, 65535)),
    "int4": (5, bytes((0x8F, 0x70, 0x05))),  # -1, -8, 0, 7, 5
    "bfloat16": (2, bytes((0x80, 0x3F, 0x49, 0xC0))),  # 1, -3.140625
}
"""Some elements of each type, how many and as they lie in memory."""


def noise(count: int, seed: int = 1, lowest: int = 1) -> bytes:
    """Bytes from ``lowest`` to 255 (Numerical Recipes' linear congruential generator)."""
    found = bytearray()
    for _ in range(count):
        seed = (1664525 * seed + 1013904223) & MOST
        found.append(lowest + (seed >> 16) % (256 - lowest))
    return bytes(found)


def tensor(dtype: str, dims: tuple[int, ...], data: bytes, **more: float) -> Tensor:
    """A tensor whose payload is ``data``; ``more`` are further fields."""
    fields: dict[str, float] = {"inference": 0, "subgraph": 0, "tensor": 0, "iteration": 0} | more
    return Tensor(dtype=dtype, dims=dims, offset=0, payload=data, **fields)  # type: ignore[arg-type]


Case = tuple[str, int, int, Message]
"""What it shows, sequence, piece, message."""


def hellos() -> Iterator[Case]:
    mask = mask_bytes(range(0, 89, 2), 89)
    person = Hello(0, 7, 4096, 4, 0x6E2B0FB4, 300568, 89, 98304, 82292, 1, "person_detect", mask)
    yield "a board that has started", 0, PIECE, person
    yield (
        "one way, nothing known, no name",
        7,
        PIECE,
        Hello(2, 0, 0, 0, 0, 0, 1, 0, 0, 1, "", b"\1"),
    )
    yield (
        "largest numbers, a name of 63 bytes",
        255,
        PIECE,
        Hello(1, 7, 65540, 255, MOST, MOST, 8, MOST, MOST, MOST, "é" * 31 + "!", b"\xff"),
    )


def elements() -> Iterator[Case]:
    for number, (dtype, (count, data)) in enumerate(ELEMENTS.items()):
        yield f"elements of {dtype}", number, PIECE, tensor(dtype, (count,), data, tensor=number)
    yield "a scalar", 16, PIECE, tensor("int32", (), struct.pack("<i", -7), tensor=16)
    yield "no elements", 17, PIECE, tensor("int8", (2, 0, 3), b"", tensor=17)
    dims = (1, 2, 1, 2, 1, 3)
    yield "six dimensions", 18, PIECE, tensor("int8", dims, bytes(range(250, 256)) * 2)
    yield "fifteen dimensions", 19, PIECE, tensor("uint8", (1,) * 15, b"\x07")


def forms() -> Iterator[Case]:
    int8 = {"subgraph": 1, "tensor": 300, "iteration": 2}
    part = {"form": SLICE, "first": 126, "count": 4}
    yield "a slice", 20, PIECE, tensor("int8", (1, 130), b"\x01\x02\xfe\xff", **int8, **part)
    yield "an empty slice", 21, PIECE, tensor("float32", (5,), b"", form=SLICE, first=5)
    summary = b"\x80\x7f" + struct.pack("<f", -3.25)
    yield "a summary", 22, PIECE, tensor("int8", (1, 48, 48, 8), summary, form=SUMMARY)
    nothing = struct.pack("<2fI", 0.0, 0.0, 0x7FC00000)
    yield "a summary of nothing but NaN", 23, PIECE, tensor("float32", (3,), nothing, form=SUMMARY)
    wide = struct.pack("<2qf", -(2**63), 2**63 - 1, 0.5)
    yield "a summary of 64 bits", 24, PIECE, tensor("int64", (9,), wide, form=SUMMARY)
    limits = {"form": HISTOGRAM, "count": 4, "low": -128.0, "high": 127.5}
    counts = struct.pack("<4I", 0, 70000, 1, 255)
    yield "a histogram", 25, PIECE, tensor("int8", (1, 70256), counts, **limits)


def stuffing() -> Iterator[Case]:
    """Runs without a zero, from the offset on: payload and check sum; lengths around 254."""
    for run in (253, 254, 255, 507, 508, 509):
        data = next(found for found in payloads(run - 4) if 0 not in check_of(found, 30))
        yield f"{run} bytes without a zero, at the end", 30, PIECE, around(data)
    for run in (253, 254, 255):
        yield f"{run} bytes without a zero, then zeros", 31, PIECE, around(noise(run) + b"\0\0")
    yield "nothing but zeros", 32, PIECE, around(bytes(300))
    yield "nothing but 255", 33, PIECE, around(b"\xff" * 300)
    yield "the mark inside", 34, PIECE, around(b"\x00\xf5" * 20)
    data = next(found for found in payloads(60) if check_of(found, 35)[3] == 0)
    yield "the last byte of the check sum is zero", 35, PIECE, around(data)


def around(data: bytes) -> Tensor:
    return tensor("uint8", (len(data),), data)


def check_of(data: bytes, sequence: int) -> bytes:
    """The check sum of the frame that sends ``data``."""
    content = bytes((Tensor.TYPE, sequence)) + around(data).fields()
    return zlib.crc32(content).to_bytes(4, "little")


def payloads(count: int) -> Iterator[bytes]:
    seed = 0
    while True:
        seed += 1
        yield noise(count, seed)


def pieces() -> Iterator[Case]:
    for count in (15, 16, 17, 32, 33):
        data = noise(count, lowest=0)
        yield f"{count} bytes in pieces of 16", 40, 16, tensor("int8", (count,), data, inference=5)
    data = noise(4097, lowest=0)
    yield "a piece more than 4096", 254, PIECE, tensor("int8", (1, 17, 241), data, inference=128)
    large = {"inference": MOST, "subgraph": 127, "tensor": 16384, "iteration": 2097152}
    yield "varints at their edges", 50, PIECE, tensor("uint8", (128, 1, 1), noise(128), **large)
    fewer = {"inference": 2**28, "subgraph": 128, "tensor": 16383, "iteration": 2097151}
    yield "varints below their edges", 51, PIECE, tensor("uint8", (127,), noise(127), **fewer)


def words() -> Iterator[Case]:
    yield "an inference has ended", 60, PIECE, Done(0, 0, 31, 43)
    yield "an inference has failed", 61, PIECE, Done(MOST, 1, 0, 0)
    yield "a command is done", 62, PIECE, Answer(66, 3, 0)
    yield (
        "the inputs are incomplete",
        63,
        PIECE,
        Answer(69, 255, 1, "input 0: 9216 bytes, not 9215"),
    )
    yield "no command", 64, PIECE, Answer(0, 0, 5, "mémoire")
    yield "from the host", 0, PIECE, Ask()
    yield "the whole mask", 1, PIECE, Select(1, 0, mask_bytes((0, 9, 88), 89))
    yield "a part of the mask", 2, PIECE, Select(1000, 128, b"\xff\x00")
    yield "no mask, only how often", 3, PIECE, Select(10, 0, b"")
    yield "forget all rules", 4, PIECE, Rule(0)
    yield "a slice", 5, PIECE, Rule(301, 2, SLICE, 126, 4)
    yield "a summary", 6, PIECE, Rule(1, 1, SUMMARY)
    yield "a histogram", 7, PIECE, Rule(89, 1, HISTOGRAM, 4, 0, -128.0, 127.5)
    yield "a first piece", 8, PIECE, Input(0, 0, noise(300, lowest=0))
    yield "a last piece", 9, PIECE, Input(1, 65536, b"\x00")
    yield "run", 10, PIECE, Run(0, 0, 0)
    yield "run with a new state", 255, PIECE, Run(MOST, 1, 0x12345678)


GROUPS = {
    "HELLO": hellos,
    "TENSOR: every element type": elements,
    "TENSOR: every form": forms,
    "TENSOR: stuffing": stuffing,
    "TENSOR: pieces and varints": pieces,
    "DONE, ANSWER and the host's commands": words,
}


def cut(message: Message, piece: int) -> list[Message]:
    """The messages of the frames: a tensor in pieces."""
    if not isinstance(message, Tensor):
        return [message]
    fields = {name: getattr(message, name) for name in Tensor.__slots__}
    return [
        Tensor(**{**fields, "offset": at, "payload": message.payload[at : at + piece]})
        for at in range(0, max(1, len(message.payload)), piece)
    ]


def line(message: Message, sequence: int, piece: int, case: str) -> str:
    shown: dict[str, object] = {
        "case": case.replace(" ", "-").replace(",", ""),
        "sequence": sequence,
    }
    for name in type(message).__slots__:
        shown[name] = value(getattr(message, name), name)
    if isinstance(message, Tensor):
        shown |= {"piece": piece, "data": shown.pop("payload")}
        del shown["offset"]
    pairs = " ".join(f"{key}={text}" for key, text in shown.items())
    return f"{type(message).__name__.lower()} {pairs}"


def value(field: object, name: str) -> str:
    if name in ("low", "high"):
        return struct.pack("<f", field).hex()
    if name == "dtype":
        return str(NUMBERS[str(field)])
    if isinstance(field, str):
        return field.encode().hex()
    if isinstance(field, bytes):
        return field.hex()
    return ",".join(map(str, field)) if isinstance(field, tuple) else str(field)


def bad() -> Iterator[tuple[str, bytes]]:
    """What is wrong, and the frame."""
    done = pack(Done(1, 0, 2, 3), 9)
    yield "one bit is flipped", done[:5] + bytes((done[5] ^ 4,)) + done[6:]
    yield "a byte is missing", done[:5] + done[6:]
    yield "a count points past the end", b"\x00\xf5\x09\x01\x02\x00"
    yield "nothing inside", b"\x00\xf5\x00"
    yield "a check sum and one byte", to_frame(b"\x41")
    yield "a padded varint", to_frame(bytes((3, 0, 0x81, 0x00, 0, 0, 0)))
    yield "a varint of 2^32", to_frame(bytes((3, 0, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0, 0)))
    yield "a varint of six bytes", to_frame(bytes((3, 0, *(0x80,) * 5, 0x01, 0, 0, 0)))
    yield "a field is missing", to_frame(bytes((3, 0, 1, 0, 2)))
    yield "a byte too many", to_frame(bytes((3, 0, 1, 0, 2, 3, 4)))
    yield "another wire version", to_frame(bytes((1, 0, 2, 0)))
    yield "an element type that is not sent", to_frame(bytes((2, 0, 0, 0, 0, 0, 5, 1, 1, 0, 9)))
    yield "a form that does not exist", to_frame(bytes((2, 0, 0, 0, 0, 0, 9, 0x41, 1, 0, 9)))
    yield "a payload past its end", to_frame(bytes((2, 0, 0, 0, 0, 0, 9, 1, 2, 1, 1, 2)))
    yield "a slice past its end", to_frame(bytes((2, 0, 0, 0, 0, 0, 9, 0x11, 4, 3, 2, 0, 1, 2)))
    huge = bytes((2, 0, 0, 0, 0, 0, 9, 2, *(0xFF,) * 4, 15, *(0xFF,) * 4, 15, 0, 1))
    yield "more than 4 GiB", to_frame(huge)
    yield "a slice of int4", to_frame(bytes((2, 0, 0, 0, 0, 0, 18, 0x11, 4, 0, 2, 0, 1)))
    hello = Hello(0, 0, 0, 0, 0, 0, 8, 0, 0, 1, "", b"\1").fields()
    yield "a mask of another size", to_frame(bytes((1, 0)) + hello + b"\1")
    yield "a command with a byte too many", to_frame(bytes((65, 0, 0)))
    yield "a command that ends early", to_frame(bytes((69, 0, 1, 0, 1, 2, 3)))


def document() -> str:
    """The whole file."""
    parts = [HEADER]
    for title, cases in GROUPS.items():
        parts.append(f"\n# {title}\n")
        for case, sequence, piece, message in cases():
            parts.append(line(message, sequence, piece, case) + "\n")
            for at, part in enumerate(cut(message, piece)):
                parts.append(f"= {pack(part, sequence + at).hex()}\n")
    parts.append("\n# Frames that are to be refused\n")
    parts += (f"bad case={case.replace(' ', '-')}\n= {frame.hex()}\n" for case, frame in bad())
    return "".join(parts)


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
