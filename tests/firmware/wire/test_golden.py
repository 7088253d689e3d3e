"""docs/wire-v1.txt against the code, and against an encoder of its own that shares none of it."""

from __future__ import annotations

import re
import runpy
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertap.errors import WireError
from layertap.firmware.wire import messages
from layertap.firmware.wire.frames import from_body
from layertap.firmware.wire.messages import Tensor, pack, unpack

GOLDEN = runpy.run_path(str(Path(__file__).with_name("golden.py")))
DOCS = Path(__file__).resolve().parents[3] / "docs"
DOC = (DOCS / "wire-format.md").read_text(encoding="utf-8")
TYPES = {"hello": 1, "tensor": 2, "done": 3, "answer": 4, "ask": 65, "select": 66, "rule": 67}
TYPES |= {"input": 68, "run": 69}
FIELDS = {
    "hello": "able receive rules !model size tensors arena used every #name *mask",
    "done": "inference :status tensors frames",
    "answer": ":command :of :status *text",
    "ask": "",
    "select": "every first *mask",
    "rule": "tap every :form a b *low *high",
    "input": "input offset *data",
    "run": "inference :flags !check",
}
""": is a byte, ! a u32, * bytes, # bytes behind their number; a varint otherwise."""


def vectors() -> list[tuple[str, dict[str, str], list[bytes]]]:
    """Name, fields and frames of each entry of the file."""
    found: list[tuple[str, dict[str, str], list[bytes]]] = []
    for line in (DOCS / "wire-v1.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            found[-1][2].append(bytes.fromhex(line[2:]))
        elif line and not line.startswith("#"):
            name, *pairs = line.split(" ")
            found.append((name, dict(pair.split("=", 1) for pair in pairs), []))
    return found


VECTORS = vectors()
GOOD = [entry for entry in VECTORS if entry[0] != "bad"]


def leb128(number: int) -> bytes:
    if number < 128:
        return bytes([number])
    return bytes([number % 128 + 128]) + leb128(number // 128)


def crc32(data: bytes) -> bytes:
    """Bit by bit, as the polynomial says."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0xEDB88320 if remainder & 1 else 0)
    return struct.pack("<I", remainder ^ 0xFFFFFFFF)


def stuffed(data: bytes) -> bytes:
    """By its definition: a zero is added at the end, what stands before each zero is cut into runs
    of 254, and each run gets its length + 1; the last is left out if it is empty behind 254."""
    found = b""
    for text in data.split(b"\x00"):
        runs = [text[at : at + 254] for at in range(0, len(text) + 1, 254)]
        found += b"".join(bytes([len(run) + 1]) + run for run in runs)
    last = data.split(b"\x00")[-1]
    return found[:-1] if last and len(last) % 254 == 0 else found


def contents(name: str, fields: dict[str, str]) -> Iterator[bytes]:
    """The contents of the frames that an entry stands for, by the tables of the document."""
    numbers = {key: int(text) for key, text in fields.items() if text.isdecimal()}
    sequence = numbers["sequence"]
    if name == "tensor":
        dims = [int(size) for size in fields["dims"].split(",") if size]
        head = b"".join(leb128(numbers[key]) for key in ("inference", "subgraph", "tensor"))
        head += leb128(numbers["iteration"])
        head += bytes([numbers["dtype"], 16 * numbers["form"] + len(dims)])
        head += b"".join(map(leb128, dims))
        if numbers["form"] == 1:
            head += leb128(numbers["first"]) + leb128(numbers["count"])
        if numbers["form"] == 3:
            head += leb128(numbers["count"]) + bytes.fromhex(fields["low"] + fields["high"])
        data, piece = bytes.fromhex(fields["data"]), numbers["piece"]
        for index, at in enumerate(range(0, max(len(data), 1), piece)):
            part = leb128(at) + data[at : at + piece]
            yield bytes([2, (sequence + index) % 256]) + head + part
        return
    content = bytes([TYPES[name], sequence])
    if name == "hello":
        content += bytes([1, numbers["reason"]])
    for field in FIELDS[name].split():
        key = field.strip(":!*#")
        if field[0] == ":":
            content += bytes([numbers[key]])
        elif field[0] == "!":
            content += struct.pack("<I", numbers[key])
        elif field[0] in "*#":
            data = bytes.fromhex(fields[key])
            content += (leb128(len(data)) if field[0] == "#" else b"") + data
        else:
            content += leb128(numbers[key])
    yield content


def case_of(entry: tuple[str, dict[str, str], list[bytes]]) -> str:
    return f"{entry[0]} {entry[1]['case']}"


@pytest.mark.parametrize("entry", GOOD, ids=case_of)
def test_frames_are_those_of_an_independent_encoder(
    entry: tuple[str, dict[str, str], list[bytes]],
) -> None:
    name, fields, frames = entry
    expected = [
        b"\x00\xf5" + stuffed(content + crc32(content)) + b"\x00"
        for content in contents(name, fields)
    ]
    assert frames == expected


@pytest.mark.parametrize("entry", GOOD, ids=case_of)
def test_frames_hold_the_fields_that_the_file_names(
    entry: tuple[str, dict[str, str], list[bytes]],
) -> None:
    name, fields, frames = entry
    payload = b""
    for index, frame in enumerate(frames):
        content = from_body(frame[2:-1])
        message = unpack(content)
        assert type(message).__name__.lower() == name
        assert content[1] == (int(fields["sequence"]) + index) % 256
        assert pack(message, content[1]) == frame
        if isinstance(message, Tensor):
            assert message.offset == len(payload)
            payload += message.payload
        for key in type(message).__slots__:
            if key not in ("offset", "payload"):
                assert GOLDEN["value"](getattr(message, key), key) == fields[key]
    assert payload.hex() == fields.get("data", "") or name != "tensor"


@pytest.mark.parametrize("entry", [e for e in VECTORS if e[0] == "bad"], ids=case_of)
def test_bad_frames_are_refused(entry: tuple[str, dict[str, str], list[bytes]]) -> None:
    (frame,) = entry[2]
    assert frame.startswith(b"\x00\xf5")
    assert frame.count(0) == 2
    with pytest.raises(WireError) as refused:
        unpack(from_body(frame[2:-1]))
    assert refused.value.hint


def test_the_file_is_what_its_program_writes() -> None:
    assert (DOCS / "wire-v1.txt").read_text(encoding="utf-8") == GOLDEN["document"]()


def test_the_file_has_every_message_type_form_and_element_type() -> None:
    assert {name for name, _, _ in GOOD} == set(TYPES)
    tensors = [fields for name, fields, _ in GOOD if name == "tensor"]
    assert {fields["form"] for fields in tensors} == {"0", "1", "2", "3"}
    types = re.findall(r"(\d+) \w+", re.search(r"`TfLiteType`: (.*?)\(", DOC, re.DOTALL)[1])
    assert {fields["dtype"] for fields in tensors} >= {*types, "19"}
    assert max(len(frames) for _, _, frames in GOOD) > 2


EXAMPLE = re.compile(r"^Example: `(\w+) (\S+)`\n\n((?:\|.*\n)+)", re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLE.findall(DOC), ids=lambda example: example[1])
def test_examples_of_the_page_are_in_the_file(example: tuple[str, str, str]) -> None:
    name, case, rows = example
    (frames,) = (frames for kind, fields, frames in GOOD if (kind, fields["case"]) == (name, case))
    cells = re.findall(r"^\| `([0-9A-F ]+)` \|", rows, re.MULTILINE)
    assert bytes.fromhex("".join(cells)) == frames[0]
    assert len(cells) == rows.count("\n") - 2


def test_the_page_has_an_example_of_each_kind_from_the_board_and_of_a_command() -> None:
    assert {"hello", "tensor", "done", "ask"} <= {name for name, _, _ in EXAMPLE.findall(DOC)}


def test_frames_written_by_hand() -> None:
    """From the tables with paper and pencil; only the check sums were computed."""
    assert pack(messages.Ask(), 0).hex() == "00f5" + "0241" + "05" + "bb6cbba8" + "00"
    done = pack(messages.Done(1, 0, 2, 3), 9)
    assert done.hex(" ", 1).startswith("00 f5 04 03 09 01 07 02 03")
    scalar = Tensor(0, 0, 1, 0, "int8", (), 0, b"\xfb")
    assert pack(scalar, 1).hex(" ").startswith("00 f5 03 02 01 01 02 01 02 09 01 06 fb")
