"""Messages and their bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.errors import WireError
from layertap.firmware.wire.elements import DTYPES, NUMBERS, dtype_name, stored_bytes
from layertap.firmware.wire.frames import from_body
from layertap.firmware.wire.messages import (
    HISTOGRAM,
    SLICE,
    SUMMARY,
    WHOLE,
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
    mask_bits,
    mask_bytes,
    pack,
    unpack,
    wire_version,
)
from layertap.tflite import schema

U8 = st.integers(0, 255)
U32 = st.integers(0, 2**32 - 1)
F32 = st.floats(width=32, allow_nan=False)
SHORT = st.binary(max_size=70)


@st.composite
def hellos(draw: st.DrawFn) -> Hello:
    tensors = draw(st.integers(0, 300))
    size = (tensors + 7) // 8
    numbers = [draw(U32) for _ in range(4)]
    name = draw(st.text(st.characters(codec="utf-8"), max_size=15))
    mask = draw(st.binary(min_size=size, max_size=size))
    return Hello(draw(U8), *numbers, draw(U32), tensors, 1, 2, draw(U32), name, mask)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(sorted(NUMBERS)))
    dims = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    place = [draw(U32) for _ in range(4)]
    forms = [WHOLE] if dtype == "int4" else [WHOLE, SLICE]
    if dtype not in ("int4", "complex64", "complex128"):
        forms += [SUMMARY, HISTOGRAM]
    form = draw(st.sampled_from(forms))
    first = count = 0
    elements = Tensor(*place, dtype, dims, 0, b"").elements
    if form == SLICE:
        first = draw(st.integers(0, elements))
        count = draw(st.integers(0, elements - first))
    low = high = 0.0
    if form == HISTOGRAM:
        count, low, high = draw(st.integers(1, 2**32 - 1)), draw(F32), draw(F32)
    whole = Tensor(*place, dtype, dims, 0, b"", form, first, count, low, high)
    offset = draw(st.integers(0, min(whole.total, 2**32 - 1)))
    payload = draw(st.binary(max_size=min(whole.total - offset, 90)))
    return Tensor(*place, dtype, dims, offset, payload, form, first, count, low, high)


TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
MESSAGES = st.one_of(
    hellos(),
    tensors(),
    st.builds(Done, U32, U8, U32, U32),
    st.builds(Answer, U8, U8, U8, TEXT),
    st.just(Ask()),
    st.builds(Select, U32, U32, SHORT),
    st.builds(Rule, U32, U32, U8, U32, U32, F32, F32),
    st.builds(Input, U32, U32, SHORT),
    st.builds(Run, U32, U8, U32),
)


@given(MESSAGES, st.integers(0, 1000))
def test_messages_come_back(message: Message, sequence: int) -> None:
    content = from_body(pack(message, sequence)[2:-1])
    assert content[:2] == bytes((message.TYPE, sequence % 256))
    assert unpack(content) == message


@given(MESSAGES, st.data())
def test_cut_and_changed_messages_raise_nothing_but_wire_errors(
    message: Message, data: st.DataObject
) -> None:
    content = bytearray(from_body(pack(message, 0)[2:-1]))
    del content[data.draw(st.integers(0, len(content))) :]
    for at in data.draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=4)):
        if content:
            content[at] = data.draw(U8)
    try:
        changed = unpack(bytes(content))
    except WireError as error:
        assert error.message
        assert error.hint
    else:
        assert bytes(content).startswith(bytes((changed.TYPE,)))


@given(st.binary(max_size=60))
def test_any_content_gives_a_message_or_a_wire_error(content: bytes) -> None:
    try:
        unpack(content)
    except WireError as error:
        assert error.hint


@pytest.mark.parametrize(
    "message",
    [
        Hello(0, 7, 0, 0, 0, 0, 8, 0, 0, 1, "x" * 64, b"\xff"),
        Hello(0, 7, 0, 0, 0, 0, 9, 0, 0, 1, "x", b"\xff"),
        Hello(0, 7, 0, 0, 2**32, 0, 8, 0, 0, 1, "x", b"\xff"),
        Tensor(0, 0, 0, 0, "string", (1,), 0, b""),
        Tensor(0, 0, 0, 0, "int8", (1,) * 16, 0, b""),
        Tensor(-1, 0, 0, 0, "int8", (1,), 0, b"\x01"),
        Tensor(0, 0, 0, 0, "int8", (1,), 1, b"\x01"),
        Tensor(0, 0, 0, 0, "int8", (2**31, 0, 2**31), 0, b""),
        Tensor(0, 0, 0, 0, "float32", (4,), 0, b"", SLICE, 3, 2),
        Tensor(0, 0, 0, 0, "complex64", (4,), 0, b"", SUMMARY),
        Tensor(0, 0, 0, 0, "int4", (4,), 0, b"", HISTOGRAM, 0, 4),
        Tensor(0, 0, 0, 0, "int8", (4,), 0, b"", HISTOGRAM, 0, 0),
        Tensor(0, 0, 0, 0, "int8", (4,), 0, b"", 4),
        Done(0, 256, 0, 0),
        Answer(65, 0, 0, "\ud800"),
        Run(0, 0, -1),
        Rule(1, 1, HISTOGRAM, 4, 0, 1e300, 0.0),
        Input(0, 0, bytes(65_536)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_does_not_fit_is_not_sent(message: Message) -> None:
    with pytest.raises(WireError) as refused:
        pack(message, 0)
    assert refused.value.hint


def test_sizes_of_payloads() -> None:
    assert Tensor(0, 0, 0, 0, "int4", (3, 3), 0, b"").total == 5
    assert Tensor(0, 0, 0, 0, "float32", (), 0, b"").total == 4
    assert Tensor(0, 0, 0, 0, "int64", (7,), 0, b"", SLICE, 2, 3).total == 24
    assert Tensor(0, 0, 0, 0, "int8", (7,), 0, b"", SUMMARY).total == 6
    assert Tensor(0, 0, 0, 0, "float64", (7,), 0, b"", HISTOGRAM, 0, 10).total == 40
    assert stored_bytes("complex128", 3) == 48


def test_names_of_element_types_are_those_of_the_tflite_file() -> None:
    assert set(DTYPES.values()) <= set(schema.DTYPES)
    with pytest.raises(WireError, match="element type 5"):
        dtype_name(5)


def test_masks() -> None:
    assert mask_bytes([0, 9, 88], 89) == struct.pack("<12B", 1, 2, *[0] * 9, 1)
    assert mask_bits(mask_bytes([3, 4, 17], 18)) == [3, 4, 17]
    assert mask_bytes([], 0) == b""


def test_a_hello_of_another_version_tells_it_whatever_follows() -> None:
    content = bytes((1, 0, 2, 0xAB, 0xCD))
    assert wire_version(content) == 2
    with pytest.raises(WireError, match="wire version 2, this layertap 1") as newer:
        unpack(content)
    assert newer.value.hint == "update layertap"
    with pytest.raises(WireError, match="wire version 0") as older:
        unpack(bytes((1, 0, 0)))
    assert "layertap firmware" in older.value.hint
    assert wire_version(b"\x02\x00\x02") is None
