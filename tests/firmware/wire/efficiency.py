"""How much of what goes over the wire is payload. Run as a program, this prints the table of
docs/wire-format.md."""

from __future__ import annotations

import runpy
from pathlib import Path

from layertap.firmware.wire.messages import Tensor, pack

PIECE = 4096
CASES = [(size, PIECE) for size in (1025, 1028, 2048, 4096, 4097, 9216, 65_536, 1 << 20)]
CASES += [(65_536, piece) for piece in (2048, 1024, 512, 256)]
NOISE: bytes = runpy.run_path(str(Path(__file__).with_name("golden.py")))["noise"](PIECE)


def wire_bytes(header: Tensor, count: int, piece: int = PIECE) -> int:
    """Bytes of the frames that send ``count`` bytes of noise under ``header``."""
    fields = {name: getattr(header, name) for name in Tensor.__slots__}
    total = 0
    for at in range(0, count, piece):
        payload = NOISE[: min(piece, count - at)]
        part = Tensor(**{**fields, "offset": at, "payload": payload})
        total += len(pack(part, 1 + at // piece % 255))
    return total


def large(count: int) -> Tensor:
    """The largest header of four dimensions whose numbers are not absurd."""
    return Tensor(2**28 - 1, 127, 16383, 127, "int8", (1, 1, 1, count), 0, b"")


def usual(count: int) -> Tensor:
    return Tensor(16383, 0, 127, 0, "int8", (1, 1, count), 0, b"")


def table() -> str:
    """Lines of payload bytes and percentages."""
    lines = ["  payload   pieces of   large   usual"]
    for count, piece in CASES:
        shares = [
            100 * count / wire_bytes(header(count), count, piece) for header in (large, usual)
        ]
        lines.append(f"{count:9,}   {piece:9,}   {shares[0]:5.2f}   {shares[1]:5.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
