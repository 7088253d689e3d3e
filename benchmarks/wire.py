"""The wire: what decoding costs beyond the check sum and the stuffing that no reader is spared,
and the bytes on the wire per byte of payload."""

from __future__ import annotations

import zlib
from functools import partial

import numpy as np
from benchmarks.timing import interleaved
from cobs import cobs

from layertap.firmware.wire.assembly import Assembly
from layertap.firmware.wire.decoder import Decoder
from layertap.firmware.wire.messages import Done, Tensor, pack

ROUNDS = 9
PORTION = 1 << 16
TOTAL = 8 << 20
"""Bytes of payload of one round."""
BAR_TIME = {256: None, 4096: 6.0, 32_768: 3.0}
BAR_BYTES = 1.0309
"""Payload is at least 97 % of the wire."""


def stream(piece: int) -> bytes:
    """Inferences of one tensor of 1 MiB in pieces, of random bytes."""
    data = np.random.default_rng(0).bytes(1 << 20)
    dims, number, frames = (1, 1024, 1024), 0, []
    for inference in range(TOTAL >> 20):
        for at in range(0, len(data), piece):
            part = Tensor(inference, 0, 7, 0, "int8", dims, at, data[at : at + piece])
            frames.append(pack(part, number))
            number += 1
        frames.append(pack(Done(inference, 0, 1, -(-len(data) // piece)), number))
        number += 1
    return b"".join(frames)


def checked(data: bytes) -> None:
    """Split, unstuff and check, with the libraries in C, and nothing else."""
    for frame in data.split(b"\x00"):
        if frame:
            content = cobs.decode(frame[1:])
            assert zlib.crc32(content[:-4]) == int.from_bytes(content[-4:], "little")


def decoded(data: bytes) -> None:
    """As a session does it: portions of a port into whole inferences."""
    decoder, assembly = Decoder(), Assembly()
    for at in range(0, len(data), PORTION):
        for event in decoder.feed(data[at : at + PORTION]):
            assembly.take(event)
    assert assembly.whole == TOTAL >> 20


def rows() -> list[dict[str, object]]:
    """Time against the bare check, by the size of the pieces; bytes against the payload."""
    found: list[dict[str, object]] = []
    for piece, bar in BAR_TIME.items():
        data = stream(piece)
        contenders = {"check": partial(checked, data), "layertap": partial(decoded, data)}
        ratio = interleaved(contenders, ROUNDS)["layertap"]
        work = f"time, pieces of {piece:,} bytes, to CRC and COBS alone"
        found.append({"work": work, "contender": "layertap", "ratio": ratio, "bar": bar})
    for count in (1025, 4096, 9216):
        dims = (1, 1, 1, count)
        header = Tensor(2**28 - 1, 127, 16383, 127, "int8", dims, 0, b"")
        found.append(_bytes(header, count))
    return found


def _bytes(header: Tensor, count: int) -> dict[str, object]:
    payload = np.random.default_rng(0).integers(1, 256, count, np.uint8).tobytes()
    fields = {name: getattr(header, name) for name in Tensor.__slots__}
    wire = sum(
        len(pack(Tensor(**{**fields, "offset": at, "payload": payload[at : at + 4096]}), 1))
        for at in range(0, count, 4096)
    )
    work = f"bytes, a tensor of {count:,} bytes without zeros, largest header"
    return {"work": work, "contender": "layertap", "ratio": wire / count, "bar": BAR_BYTES}
