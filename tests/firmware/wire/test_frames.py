"""Frames, check sums and varints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.errors import WireError
from layertap.firmware.wire.frames import (
    BODY_LIMIT,
    CONTENT_LIMIT,
    from_body,
    read_varint,
    to_frame,
    varint,
)

RUNS = st.sampled_from([0, 1, 252, 253, 254, 255, 256, 507, 508, 509])
BYTES = st.lists(st.tuples(RUNS, st.sampled_from([b"", b"\0", b"\0\0", b"\xf5", b"\xff"])))
CONTENT = BYTES.map(lambda parts: b"ab" + b"".join(b"\x01" * n + end for n, end in parts))


@given(CONTENT)
def test_a_frame_has_no_zero_inside_and_gives_its_content_back(content: bytes) -> None:
    frame = to_frame(content)
    assert frame.startswith(b"\x00\xf5")
    assert frame.endswith(b"\x00")
    assert 0 not in frame[1:-1]
    assert from_body(frame[2:-1]) == content
    assert len(frame) <= 3 + len(content) + 4 + (len(content) + 4) // 254 + 1


@given(CONTENT, st.data())
def test_every_flipped_bit_is_found(content: bytes, data: st.DataObject) -> None:
    body = bytearray(to_frame(content)[2:-1])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WireError):
        from_body(bytes(body))


def test_a_closing_count_that_may_be_left_out_is_accepted() -> None:
    content = next(
        found
        for found in (b"ab" + b"\x07" * 247 + bytes([n]) for n in range(1, 256))
        if to_frame(found)[2] == 255 and len(to_frame(found)) == 3 + 255
    )
    body = to_frame(content)[2:-1]
    assert from_body(body) == from_body(body + b"\x01") == content


def test_the_longest_content_fits_and_one_byte_more_does_not() -> None:
    longest = b"\x01" * CONTENT_LIMIT
    body = to_frame(longest)[2:-1]
    assert len(body) <= BODY_LIMIT
    assert from_body(body) == longest
    with pytest.raises(WireError, match="65,537 bytes does not fit") as refused:
        to_frame(longest + b"\x01")
    assert "in pieces" in refused.value.hint


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x05abcd", b"\xff", b"\x02a" * 40_000])
def test_what_is_no_frame_is_refused(body: bytes) -> None:
    with pytest.raises(WireError, match="a frame is damaged"):
        from_body(body)


@given(st.integers(0, 2**32 - 1), st.binary(max_size=3))
def test_varints_come_back(value: int, before: bytes) -> None:
    coded = varint(value)
    assert len(coded) == max(1, -(-value.bit_length() // 7))
    assert read_varint(before + coded + b"\xff", len(before)) == (value, len(before + coded))


@pytest.mark.parametrize("value", [-1, 2**32])
def test_a_varint_has_32_bits(value: int) -> None:
    with pytest.raises(WireError, match="cannot be sent"):
        varint(value)


@pytest.mark.parametrize(
    "coded", [b"", b"\x80", b"\x80\x00", b"\xff\xff\xff\xff\x10", b"\x80" * 5 + b"\x01"]
)
def test_malformed_varints_are_refused(coded: bytes) -> None:
    with pytest.raises(WireError, match="there is no varint at byte 0"):
        read_varint(coded, 0)
