"""Streams of any kind, in any portions."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.firmware.wire.decoder import Damage, Decoder, Event, Kind, Text
from layertap.firmware.wire.frames import BODY_LIMIT, to_frame
from layertap.firmware.wire.messages import Ask, Done, Hello, Message, Tensor, pack

HELLO = Hello(0, 7, 4096, 4, 0x12345678, 1000, 3, 0, 0, 1, "model", b"\x07")


def piece(number: int, data: bytes = b"\x01\x02\x00\xf5") -> Tensor:
    return Tensor(0, 0, number, 0, "int8", (len(data),), 0, data)


MESSAGES: list[Message] = [HELLO, piece(0), piece(1), piece(2, b"\x07" * 600), Done(0, 0, 3, 3)]


def frames(messages: Iterable[Message], first: int = 0) -> list[bytes]:
    return [pack(message, first + at) for at, message in enumerate(messages)]


def decoded(data: bytes, size: int = 1 << 20) -> tuple[list[Event], Decoder]:
    decoder = Decoder()
    events = [e for at in range(0, len(data), size) for e in decoder.feed(data[at : at + size])]
    return events + decoder.finish(), decoder


def kinds(events: Iterable[Event]) -> list[Kind]:
    return [event.kind for event in events if isinstance(event, Damage)]


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000, 1 << 20])
def test_frames_and_text_come_in_their_order(size: int) -> None:
    hello, a, b, c, done = frames(MESSAGES)
    stream = b"boot\r\n" + hello + a + b"between" + b + b"\xc3\xa9\n" + c + done + b"end"
    events, decoder = decoded(stream, size)
    text = [Text("boot"), Text("between"), Text("é"), Text("end")]
    assert [event for event in events if isinstance(event, Text)] == text
    assert [event for event in events if not isinstance(event, Text)] == MESSAGES
    assert events[0] == text[0]
    assert events[3] == text[1]
    counters = decoder.counters
    assert (counters.frames, counters.payload, counters.bytes) == (5, 608, len(stream))
    assert counters.text == len(b"boot\r\nbetween\xc3\xa9\nend")
    assert (counters.lost, counters.damaged, counters.noise, counters.starts) == (0, 0, 0, 1)
    assert decoder.diagnosis() is None


def test_text_is_passed_on_when_its_line_ends_not_when_a_frame_comes() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\x00hel") == []
    assert decoder.feed(b"lo\nwor") == [Text("hello")]


@pytest.mark.parametrize("dropped", range(5))
def test_a_lost_frame_is_counted_and_the_others_come(dropped: int) -> None:
    parts = frames(MESSAGES)
    rest = [message for at, message in enumerate(MESSAGES) if at != dropped]
    events, decoder = decoded(b"".join(parts[:dropped] + parts[dropped + 1 :]))
    assert [event for event in events if not isinstance(event, Damage)] == rest
    inside = 0 < dropped < 4
    assert decoder.counters.lost == inside
    assert kinds(events) == [Kind.LOST] * inside


def test_every_byte_that_is_dropped_or_flipped_costs_at_most_one_frame_each_side() -> None:
    stream = b"".join(frames(MESSAGES))
    for at in range(len(stream)):
        for damaged in (
            stream[:at] + stream[at + 1 :],
            stream[:at] + bytes((stream[at] ^ 0x10,)) + stream[at + 1 :],
        ):
            events, _ = decoded(damaged)
            came = [event for event in events if not isinstance(event, Damage | Text)]
            assert all(message in MESSAGES for message in came)
            assert len(came) >= len(MESSAGES) - 2, at


def test_a_missing_zero_on_either_side_of_a_frame_costs_nothing() -> None:
    hello, a, *_ = frames(MESSAGES)
    events, _ = decoded(b"text" + hello[1:] + a[:-1] + b"\x00")
    assert events == [Text("text"), *MESSAGES[:2]]
    assert decoded(hello[:-1] + a)[0] == MESSAGES[:2]


@pytest.mark.parametrize("joined", [3, 5, 20, 300])
def test_a_host_that_joins_within_a_frame_starts_with_the_next(joined: int) -> None:
    body = bytes(range(128, 256)) * 3
    first, *others = frames([piece(0, body), piece(1), Done(0, 0, 2, 2)], first=77)
    events, decoder = decoded(first[joined:] + b"".join(others))
    assert [event for event in events if not isinstance(event, Damage)] == [
        piece(1),
        Done(0, 0, 2, 2),
    ]
    assert set(kinds(events)) == {Kind.JOINED}
    assert (decoder.counters.damaged, decoder.counters.lost) == (0, 0)
    assert decoder.diagnosis() is None


def test_a_frame_broken_off_by_a_reset_is_damage_and_the_words_behind_it_are_text() -> None:
    hello, _, _, large, _ = frames(MESSAGES)
    words = b"\r\nassertion failed: main.cc:17\r\nboot\r\n"
    events, decoder = decoded(hello + large[:300] + words + hello)
    assert kinds(events) == [Kind.FRAME]
    assert [event.line for event in events if isinstance(event, Text)] == [
        "",
        "assertion failed: main.cc:17",
        "boot",
    ]
    assert [event for event in events if isinstance(event, Hello)] == [HELLO, HELLO]
    assert (decoder.counters.starts, decoder.counters.lost) == (2, 0)


def test_swapped_frames_are_told() -> None:
    a, b, c, d = frames([piece(0), piece(1), piece(2), Done(0, 0, 3, 3)])
    events, decoder = decoded(a + c + b + d)
    assert kinds(events) == [Kind.LOST, Kind.LATE]
    assert [event for event in events if isinstance(event, Tensor)] == [
        piece(0),
        piece(2),
        piece(1),
    ]
    assert (decoder.counters.lost, decoder.counters.late) == (0, 1)


def test_a_frame_sent_twice_is_told() -> None:
    a, b, c = frames([piece(0), piece(1), piece(2)])
    events, decoder = decoded(a + b + b + c)
    assert kinds(events) == [Kind.REPEATED]
    assert (decoder.counters.lost, decoder.counters.repeated) == (0, 1)


def test_a_console_that_writes_crlf_is_recognised() -> None:
    plain = frames([HELLO, piece(1, b"\n\r\n" + b"\x07" * 50), Done(0, 0, 1, 1)])
    events, decoder = decoded(b"".join(plain).replace(b"\n", b"\r\n"))
    assert kinds(events) == [Kind.TRANSLATED, Kind.LOST]
    assert decoder.counters.translated == decoder.counters.damaged == 1


def test_a_frame_without_end_does_not_swallow_what_the_board_says_later() -> None:
    decoder = Decoder()
    decoder.feed(b"\x00\xf5" + b"\xff" * (BODY_LIMIT - 1))
    assert kinds(decoder.feed(b"\xff\xff\n")) == [Kind.FRAME]
    assert decoder.feed(b"panic\n" + pack(HELLO, 0)) == [Text("panic"), HELLO]


def test_a_message_that_is_not_known_is_told_and_counted_in_its_order() -> None:
    events, decoder = decoded(pack(piece(0), 0) + to_frame(b"\x09\x01") + pack(piece(1), 2))
    assert kinds(events) == [Kind.MESSAGE]
    assert decoder.counters.unknown == 1
    assert decoder.counters.lost == 0


def test_another_wire_version_is_told() -> None:
    events, decoder = decoded(to_frame(bytes((1, 0, 9, 1, 2, 3))))
    assert kinds(events) == [Kind.WIRE]
    assert decoder.other_wire == 9
    decoder.feed(pack(HELLO, 0))
    assert decoder.other_wire is None


def test_what_a_host_sends_is_decoded_too() -> None:
    events, decoder = decoded(pack(Ask(), 0))
    assert events == [Ask()]
    assert decoder.counters.echoes == 1


PARTS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\x00", b"\xf5", b"\x00\xf5", b"\xff", b"\r\n", b"text\n", b"\xc3"]),
    st.sampled_from(frames(MESSAGES)),
    st.sampled_from(frames(MESSAGES, 200)).flatmap(
        lambda frame: st.integers(0, len(frame)).map(lambda at: frame[at:])
    ),
)
STREAMS = st.lists(PARTS, max_size=30).map(b"".join)


@given(STREAMS, st.integers(1, 50))
def test_any_stream_gives_the_same_in_any_portions(stream: bytes, size: int) -> None:
    whole, by_portions = decoded(stream)[0], decoded(stream, size)[0]
    messages = [event for event in whole if not isinstance(event, Text | Damage)]
    assert messages == [e for e in by_portions if not isinstance(e, Text | Damage)]
    counters = decoded(stream)[1].counters
    assert counters == decoded(stream, size)[1].counters
    assert counters.bytes == len(stream)


@given(STREAMS)
def test_a_frame_behind_a_zero_comes_whatever_was_before(stream: bytes) -> None:
    decoder = Decoder()
    decoder.feed(stream + b"\x00")
    assert decoder.feed(pack(HELLO, 0))[-1] == HELLO


def seconds(stream: bytes) -> float:
    """The processor time that decoding takes."""
    decoder, start = Decoder(), time.process_time()
    for at in range(0, len(stream), 1 << 16):
        decoder.feed(stream[at : at + (1 << 16)])
    decoder.finish()
    return time.process_time() - start


UNITS = {
    "random": random.Random(0).randbytes(1 << 14),
    "marks": b"\xf5" * (1 << 14),
    "empty frames": b"\x00\xf5" * (1 << 13),
    "counts": b"\xff" * (1 << 14),
    "one line": b"a" * (1 << 14),
    "a frame that never ends": b"\x00\xf5" + b"a\r\n" * 5461,
    "a frame of text": b"\x00\xf5" + b"words and words\r\n" * 3800,
    "bad frames": pack(piece(0, b"\x07" * 9000), 0)[:-2] + b"\x01\x00",
}


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_time_is_linear(unit: str) -> None:
    """Eight times as much takes about eight times as long, whatever it is."""
    count = max(1, (1 << 16) // len(UNITS[unit]))
    short, long = UNITS[unit] * count, UNITS[unit] * (8 * count)
    once = min(seconds(short) for _ in range(3))
    assert min(seconds(long) for _ in range(2)) < 3 * 8 * once + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_memory_is_bounded(seed: int) -> None:
    """Hundreds of kilobytes of anything in portions: nothing is kept."""
    rng = random.Random(seed)
    good = b"".join(frames([piece(0, rng.randbytes(500))] * 100))
    units = [rng.randbytes(4096), b"\xf5" * 4096, b"\x00\xf5" * 2048, b"\xff" * 4096, b"a" * 4096]
    units += [good, bytes(4096), b"\n" * 4096, b"\x00\xf5" + rng.randbytes(3000)]
    mutated = bytearray(good)
    for _ in range(200):
        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
    stream = b"".join(rng.choice([*units, bytes(mutated)]) for _ in range(60))
    looked = 0

    def counting(data: bytes) -> None:
        nonlocal looked
        looked += len(decoder.feed(data))

    decoder = Decoder()
    tracemalloc.start()
    try:
        for at in range(0, len(stream), 4096):
            counting(stream[at : at + 4096])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20
    assert looked <= len(stream)


def test_floats_of_a_header_are_compared_by_their_bits() -> None:
    (nan,) = struct.unpack("<f", struct.pack("<I", 0x7FC00001))
    a, b = (Tensor(0, 0, 0, 0, "int8", (4,), 0, b"", 3, 0, 4, nan, 1.0) for _ in range(2))
    assert a.header == b.header
