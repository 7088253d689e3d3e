"""Text told apart from noise."""

from __future__ import annotations

import random

import pytest

from layertap.firmware.wire.text import LINE_LIMIT, Lines, is_text, salvaged


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_come_whole_however_they_are_cut(size: int) -> None:
    data = "Grüße vom Board\r\n\n温度 23 °C\n\tx = 5\x1b[0m\n".encode()
    lines = Lines()
    found = [line for at in range(0, len(data), size) for line in lines.take(data[at : at + size])]
    assert found == ["Grüße vom Board", "", "温度 23 °C", "\tx = 5\x1b[0m"]
    assert (lines.text, lines.noise) == (len(data), 0)


def test_a_character_that_a_frame_cuts_is_put_together() -> None:
    lines = Lines()
    assert lines.take(b"20 \xc2") + lines.flush() == ["20 "]
    assert lines.take(b"\xb0C\n") == ["°C"]


def test_a_long_line_does_not_wait_for_its_end() -> None:
    lines = Lines()
    found = lines.take(b"a" * (3 * LINE_LIMIT))
    assert "".join(map(str, found)) == "a" * (3 * LINE_LIMIT)
    assert lines.flush() == []


def test_noise_is_counted() -> None:
    noise = bytes(byte for byte in random.Random(0).randbytes(900) if byte not in (0, 10, 0xF5))
    lines = Lines()
    found = lines.take(b"before\n" + noise) + lines.take(b"\nafter\n") + lines.flush()
    assert found == ["before", len(noise) + 1, "after"]
    assert lines.noise == len(noise) + 1


def test_what_is_text() -> None:
    assert is_text("é".encode()[1:] + b"t\xc3\xa9\xe6\xb8")
    assert is_text(b"")
    assert not is_text(bytes(range(128, 160)))
    assert not is_text(b"\x01\x02\x03")


def test_last_words_in_a_broken_frame_are_kept() -> None:
    words = b"Guru Meditation Error: Core 0 panic'ed\r\nRebooting...\r\n"
    assert salvaged(bytes(range(128, 200)) + words) == words
    assert salvaged(bytes(range(128, 200)) + b"short\n") == b""
    # Pixels may all be printable; they have no words.
    assert salvaged(b"\x80" + bytes(range(33, 60)) * 4 + b"\n") == b""
