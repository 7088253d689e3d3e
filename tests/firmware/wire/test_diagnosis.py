"""What a stream as a whole says, and how to mend it."""

from __future__ import annotations

import random

import pytest

from layertap.errors import WireError
from layertap.firmware.wire.decoder import Decoder
from layertap.firmware.wire.frames import to_frame
from layertap.firmware.wire.messages import Ask, Done, Hello, Tensor, pack

HELLO = Hello(0, 7, 4096, 4, 0x12345678, 1000, 3, 0, 0, 1, "model", b"\x07")


def board(inferences: int) -> bytes:
    """What a board sends that prints, too."""
    rng = random.Random(1)
    found, number = b"starting up\r\n" + pack(HELLO, 0), 1
    for inference in range(inferences):
        data = rng.randbytes(400)
        found += pack(Tensor(inference, 0, 1, 0, "int8", (400,), 0, data), number)
        found += pack(Done(inference, 0, 1, 1), number + 1) + b"inference done\r\n"
        number += 2
    return found


def diagnosed(data: bytes) -> WireError | None:
    decoder = Decoder()
    decoder.feed(data)
    return decoder.diagnosis()


def found(data: bytes) -> WireError:
    error = diagnosed(data)
    assert error is not None
    assert "\n" not in str(error)
    assert error.hint
    return error


def at_baud(data: bytes, sent: float, read: float) -> bytes:
    """What a UART at ``read`` baud makes of 8N1 characters sent back to back at ``sent`` baud."""
    line = [1] * 40
    for byte in data:
        line += [0, *(byte >> bit & 1 for bit in range(8)), 1]
    line += [1] * 40
    ratio, at, out = sent / read, 0.0, bytearray()

    def level(place: float) -> int:
        return line[int(place)] if place < len(line) else 1

    while at < len(line):
        if level(at) == 1:
            at += 0.25
            continue
        bits = [level(at + (index + 1.5) * ratio) for index in range(8)]
        out.append(sum(bit << index for index, bit in enumerate(bits)))
        at += 9.5 * ratio
        while at < len(line) and level(at) == 0:
            at += 0.25
    return bytes(out)


def test_the_simulated_uart_is_right_at_the_right_rate() -> None:
    assert at_baud(board(2), 115200, 115200) == board(2)


@pytest.mark.parametrize(
    ("sent", "read"),
    [(115200, 9600), (57600, 115200), (115200, 57600), (115200, 230400), (921600, 115200)],
)
def test_the_wrong_baud_rate_is_recognised(sent: int, read: int) -> None:
    error = found(at_baud(board(20), sent, read))
    assert "the baud rate looks wrong" in error.message
    assert "115200" in error.hint


def test_a_baud_rate_far_too_high_reads_zeros() -> None:
    error = found(at_baud(board(20), 9600, 115200))
    assert "nearly all of them zeros" in error.message
    assert error.hint.startswith("the baud rate is far above")


def test_nothing_is_wrong_with_a_good_stream_or_with_none() -> None:
    assert diagnosed(board(3)) is None
    assert diagnosed(b"") is None
    assert diagnosed(b"\xff\x00\x81") is None


def test_one_damaged_frame_in_many_is_no_diagnosis() -> None:
    stream = bytearray(board(30))
    stream[500] ^= 1
    assert diagnosed(bytes(stream)) is None


def test_a_firmware_without_layertap() -> None:
    error = found(b"tick\r\n" * 30)
    assert "180 bytes of text came, and no frame" in error.message
    assert "Probe" in error.hint


def test_a_line_that_is_held_low() -> None:
    assert "nearly all of them zeros" in found(bytes(100)).message


def test_a_console_that_translates_line_ends() -> None:
    error = found(board(30).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    assert r"writes \r\n for \n" in error.message
    assert "stdio_set_translate_crlf" in error.hint


def test_a_port_that_echoes() -> None:
    assert "what is sent comes back" in found(pack(Ask(), 0) * 3).message


def test_a_bad_link() -> None:
    stream, rng = bytearray(board(40)), random.Random(2)
    for _ in range(30):
        stream[rng.randrange(len(stream))] ^= 4
    error = found(bytes(stream))
    assert "frames arrived damaged" in error.message
    assert "LAYERTAP_LOCK" in error.hint


def test_another_wire_version() -> None:
    error = found(to_frame(bytes((1, 0, 2, 9))))
    assert error.message == "the board speaks wire version 2, this layertap 1"
    assert error.hint == "update layertap"


def test_a_board_that_reboots_in_a_loop() -> None:
    now = [100.0]
    decoder = Decoder(clock=lambda: now[0])
    for _ in range(4):
        decoder.feed(board(1)[:-100] + b"\x00stack overflow in main\r\n")
        now[0] += 2.5
    error = decoder.diagnosis()
    assert error is not None
    assert "has started 4 times in 7.5 s" in error.message
    assert "it printed 'stack overflow in main / starting up'" in error.message
    assert "docs/device-troubles.md" in error.hint


def test_a_board_reset_now_and_then_is_no_loop() -> None:
    now = [0.0]
    decoder = Decoder(clock=lambda: now[0])
    for _ in range(6):
        decoder.feed(board(2))
        now[0] += 45
    assert decoder.diagnosis() is None


def test_the_last_thing_before_a_reboot_is_told() -> None:
    decoder = Decoder()
    for _ in range(3):
        decoder.feed(pack(HELLO, 0))
        decoder.feed(pack(Tensor(7, 1, 5, 0, "int8", (1,), 0, b"\x01"), 1))
    error = decoder.diagnosis()
    assert error is not None
    assert "tensor 5 of subgraph 1, inference 7" in error.message
