"""Frames: content with its check sum, stuffed so that no zero is inside, between marks."""

from __future__ import annotations

import zlib

from cobs import cobs

from layertap.errors import WireError

MARK = 0xF5
"""First byte of a frame behind the zero that opens it; never part of UTF-8."""
CONTENT_LIMIT = 65_536
"""Bytes that the content of one frame has at most."""
CHECK_BYTES = 4
BODY_LIMIT: int = cobs.max_encoded_length(CONTENT_LIMIT + CHECK_BYTES)
"""Bytes that stuffed content and check sum have at most, between mark and closing zero."""
VARINT_BYTES = 5
VARINT_END = 1 << 32


def to_frame(content: bytes) -> bytes:
    """``content`` as it goes over the wire, ``00 F5 ... 00``. Raises WireError if too long."""
    if len(content) > CONTENT_LIMIT:
        raise WireError(
            f"a message of {len(content):,} bytes does not fit into a frame",
            hint=f"a frame holds at most {CONTENT_LIMIT:,} bytes: send it in pieces",
        )
    check = zlib.crc32(content).to_bytes(CHECK_BYTES, "little")
    return b"\x00\xf5" + bytes(cobs.encode(content + check)) + b"\x00"


def from_body(body: bytes) -> bytes:
    """The content of a frame from what stood between its mark and its closing zero.

    Raises WireError when it is not stuffed rightly, too short, too long, or fails its check sum.
    """
    if len(body) > BODY_LIMIT:
        raise _damaged(f"it has more than {BODY_LIMIT:,} bytes")
    try:
        whole = bytes(cobs.decode(body))
    except cobs.DecodeError as error:
        raise _damaged("a byte count points past its end") from error
    content, check = whole[:-CHECK_BYTES], whole[-CHECK_BYTES:]
    if len(content) < 2:
        raise _damaged(f"it holds {len(whole)} bytes, fewer than type, sequence and check sum")
    if zlib.crc32(content) != int.from_bytes(check, "little"):
        raise _damaged("its check sum is wrong")
    return content


def _damaged(why: str) -> WireError:
    return WireError(f"a frame is damaged: {why}", hint="bytes were lost or changed on the way")


def varint(value: int) -> bytes:
    """``value`` as unsigned LEB128, at most 5 bytes. Raises WireError outside 0 to 2^32 - 1."""
    if not 0 <= value < VARINT_END:
        raise WireError(
            f"{value} cannot be sent as a varint", hint="it takes numbers from 0 to 2^32 - 1"
        )
    coded = bytearray()
    while value > 0x7F:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint at byte ``at`` of ``data`` and the position behind it.

    Raises WireError when it is cut off, padded, longer than 5 bytes, or 2^32 or more.
    """
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for index, byte in enumerate(data[at : at + VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= VARINT_END or (byte == 0 and index > 0):
                break
            return value, at + index + 1
    raise WireError(
        f"there is no varint at byte {at} of a message",
        hint="a varint is unsigned LEB128, shortest form, below 2^32",
    )


__all__ = [
    "BODY_LIMIT",
    "CHECK_BYTES",
    "CONTENT_LIMIT",
    "MARK",
    "from_body",
    "read_varint",
    "to_frame",
    "varint",
]
