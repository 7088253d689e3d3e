"""The C side of the wire at work: the test board sends, obeys, and goes wrong as ordered."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import boardmodel
import numpy as np
import pytest
from boardmodel import FEED, MODEL
from testboard import Board, Fault, Orders, host_board
from toolchain import SANITIZERS

from layertap.core.dtypes import Array
from layertap.firmware.wire.assembly import Assembly, Inference
from layertap.firmware.wire.decoder import Damage, Decoder, Event, Text
from layertap.firmware.wire.frames import to_frame
from layertap.firmware.wire.messages import (
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
from layertap.tflite.model import parse

pytestmark = pytest.mark.slow

NAMES = {
    (subgraph.index, tensor.index): tensor.name
    for subgraph in parse(MODEL).subgraphs
    for tensor in subgraph.tensors
}
BITS = {name: bit for bit, name in enumerate(NAMES.values())}
ALONE = Orders(able=0, receive=0, runs=2)


def talk(
    command: Sequence[str],
    commands: Sequence[Message] | bytes = (),
    done: int = 1,
    seconds: float = 30,
    silence: float = 10,
) -> list[Event]:
    """What a board says to ``commands`` (messages, or frames as they are) until it leaves, ``done``
    inferences have ended, or so many seconds have passed, at all or without a byte."""
    sent = commands if isinstance(commands, bytes) else stream(commands)
    decoder, events = Decoder(), []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        run.stdin.write(sent)
        run.stdin.close()
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(run.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                ready = selector.select(timeout=silence)
                data = os.read(run.stdout.fileno(), 1 << 16) if ready else b""
                if not data:
                    break
                events += decoder.feed(data)
                if sum(isinstance(event, Done) for event in events) >= done:
                    break
        run.kill()
    return events


def stream(commands: Sequence[Message]) -> bytes:
    return b"".join(pack(message, number) for number, message in enumerate(commands))


def run_once(feed: Mapping[str, Array] = FEED, number: int = 0, flags: int = 0) -> list[Message]:
    """The commands that run one inference."""
    data = [value.tobytes() for value in feed.values()]
    check = 0
    for part in data:
        check = zlib.crc32(part, check)
    return [*(Input(i, 0, part) for i, part in enumerate(data)), Run(number, flags, check)]


def inferences(events: Sequence[Event]) -> list[Inference]:
    assembly = Assembly()
    return [ended for event in events if (ended := assembly.take(event)) is not None]


def by_name(inference: Inference) -> dict[str, list[Array]]:
    return {
        NAMES[place]: [value.array for value in values]
        for place, values in inference.tensors.items()
    }


def assert_equal(actual: Mapping[str, list[Array]], expected: Mapping[str, list[Array]]) -> None:
    assert actual.keys() == {name for name, values in expected.items() if values}
    for name, values in actual.items():
        assert len(values) == len(expected[name]), name
        for value, wanted in zip(values, expected[name], strict=True):
            assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape), name
            assert value.tobytes() == np.ascontiguousarray(wanted).tobytes(), name


def test_tiny_pieces_under_the_sanitizers(tmp_path: Path) -> None:
    """The board's own memory is watched too."""
    flags = ("-DLAYERTAP_PIECE=7", "-DLAYERTAP_GATHER=1", *SANITIZERS)
    check_every_tensor(host_board(tmp_path, *flags).command(MODEL))


def check_every_tensor(command: Sequence[str]) -> None:
    """Two inferences with a state in between, the second with another input."""
    second = {"x": FEED["x"][::-1] * 2, "steps": np.array([0], np.int32)}
    events = talk(command, [*run_once(), *run_once(second, 7)], 2, silence=25)
    assert not [event for event in events if isinstance(event, Damage)]
    first, other = inferences(events)
    assert (first.whole, first.number, first.status) == (True, 0, 0)
    assert (other.whole, other.number, other.status) == (True, 7, 0)
    expected, state = boardmodel.values(FEED)
    assert_equal(by_name(first), expected)
    assert_equal(by_name(other), boardmodel.values(second, state)[0])


def test_every_dtype_and_shape_comes_as_it_was(board: Board) -> None:
    check_every_tensor(board.command(MODEL))


def test_every_dtype_and_shape_comes_from_a_cortex_m3(emulated_board: Board) -> None:
    check_every_tensor(emulated_board.command(MODEL))


def test_a_board_without_a_way_back_runs_on_its_own(board: Board) -> None:
    events = talk(board.command(MODEL, ALONE), done=9)
    assert isinstance(events[0], Hello)
    assert (events[0].able, events[0].receive) == (0, 0)
    found = inferences(events)
    assert [inference.number for inference in found] == [0, 1]
    assert all(inference.whole for inference in found)
    x = ((np.arange(24) + 1) % 7 - 3).astype(np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(by_name(found[1])["x"][0], x)


def test_hello_says_what_the_board_is(board: Board) -> None:
    orders = Orders(name="keyword ✓", arena=96 * 1024, used=82_292, taps=[BITS["x"]])
    started, asked = talk(board.command(MODEL, orders), [Ask()])
    assert isinstance(started, Hello)
    assert isinstance(asked, Hello)
    assert (started.reason, asked.reason) == (0, 1)
    assert (asked.model, asked.size) == (zlib.crc32(MODEL), len(MODEL))
    assert (asked.name, asked.arena, asked.used) == ("keyword ✓", 96 * 1024, 82_292)
    assert (asked.tensors, asked.able, asked.receive, asked.rules) == (len(NAMES), 7, 1024, 4)
    assert asked.mask == mask_bytes([BITS["x"]], len(NAMES))


def test_the_host_selects(board: Board) -> None:
    mask = mask_bytes([BITS["large"], BITS["body/x"]], len(NAMES))
    parts = [Select(1, 0, mask[:3]), Select(1, 3, mask[3:])]
    events = talk(board.command(MODEL), [*parts, *run_once()])
    answers = [event for event in events if isinstance(event, Answer)]
    assert [(a.command, a.of, a.status) for a in answers] == [(66, 0, 0), (66, 1, 0)]
    (found,) = inferences(events)
    assert {name: len(values) for name, values in by_name(found).items()} == {
        "large": 1,
        "body/x": 3,
    }


def test_rules_send_less(board: Board) -> None:
    rules = [
        Rule(BITS["large"] + 1, 1, 1, a=5, b=30),
        Rule(BITS["cast/int16"] + 1, 1, 2),
        Rule(BITS["x"] + 1, 1, 3, a=4, low=-3.0, high=3.0),
        Rule(BITS["six"] + 1, every=2),  # what RUN starts is sent all the same
    ]
    events = talk(board.command(MODEL), [*rules, *run_once(number=1)])
    assert [event.status for event in events if isinstance(event, Answer)] == [0] * 4
    (found,) = inferences(events)
    values = by_name(found)
    np.testing.assert_array_equal(values["large"][0], np.resize(FEED["x"], 35)[5:])
    np.testing.assert_array_equal(
        values["cast/int16"][0], np.float32([-5, 6, np.trunc(FEED["x"]).mean()])
    )
    np.testing.assert_array_equal(values["x"][0], [8, 3, 3, 10])
    assert values["six"][0].shape == (1, 2, 1, 3, 2, 2)


def test_a_board_on_its_own_sends_every_so_many(board: Board) -> None:
    """It takes orders between inferences."""
    commands = [Select(2, 0, mask_bytes([0, BITS["six"]], len(NAMES))), Rule(BITS["six"] + 1, 3)]
    events = talk(board.command(MODEL, Orders(able=6, runs=40, pause=5)), commands, done=99)
    answered = max(i for i, event in enumerate(events) if isinstance(event, Answer))
    numbers = {
        name: [found.number for found in inferences(events[answered:]) if (0, bit) in found.tensors]
        for name, bit in (("x", 0), ("six", BITS["six"]), ("row", BITS["row"]))
    }
    start = next(event.inference for event in events[answered:] if isinstance(event, Done))
    assert numbers["x"] == [number for number in range(start, 40) if number % 2 == 0]
    assert numbers["six"] == [number for number in range(start, 40) if number % 3 == 0]
    assert numbers["row"] == []
    assert start < 30


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (Rule(len(NAMES) + 1), 2),
        (Rule(1, every=0), 2),
        (Rule(1, form=9), 4),
        (Select(0, 0, b""), 2),
        (Select(1, 1000, b"x"), 2),
        (Input(9, 0, b""), 2),
        (Input(0, 95, b"xx"), 2),
        (Input(0, (1 << 32) - 1, b"xx"), 2),
        (Run(0, 0, 12345), 1),
    ],
)
def test_commands_that_cannot_be_obeyed(board: Board, message: Message, status: int) -> None:
    _, answer = talk(board.command(MODEL), [message])
    assert isinstance(answer, Answer)
    assert (answer.command, answer.of, answer.status) == (message.TYPE, 0, status)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"A",
        b"A\x00\x00",  # an ASK with a byte too many
        b"B\x00\x81\x00\x00\xff",  # a padded varint
        b"B\x00\x81\x80\x80\x80\x10\x00\xff",  # 2^32 + 1
        b"B\x00\x81\x80\x80\x80\x80\x01\x00\xff",  # six bytes
        b"B\x00\x01",
        b"C\x00\x01\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00",  # a byte short
        b"C\x00\x01\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"D\x00\x00",
        b"E\x00\x00\x00\x00\x00\x00",
        b"E\x00\x00\x00\x00\x00\x00\x00\x00",
    ],
    ids=bytes.hex,
)
def test_malformed_commands_are_dropped_without_a_word(board: Board, content: bytes) -> None:
    _, answer = talk(board.command(MODEL), to_frame(content) + pack(Rule(0), 77))
    assert answer == Answer(Rule.TYPE, 77, 0, "")


def test_a_frame_that_ends_too_early_is_dropped(board: Board) -> None:
    """Its bytes and their CRC are right, but its last code promises one more."""
    whole = pack(Rule(0), 5)
    at = 2
    while at + whole[at] < len(whole) - 1:
        at += whole[at]
    cut = whole[:at] + bytes([whole[at] + 1]) + whole[at + 1 :]
    assert len(talk(board.command(MODEL), whole)) == 2
    assert len(talk(board.command(MODEL), cut)) == 1


def test_commands_that_are_not_known_are_answered(board: Board) -> None:
    _, answer = talk(board.command(MODEL), to_frame(b"\x60\x09and more"))
    assert answer == Answer(0x60, 9, 4, "")


def test_the_fifth_rule_finds_no_room(board: Board) -> None:
    rules = [Rule(bit + 1, 1, 2) for bit in range(5)]
    answers = talk(board.command(MODEL, Orders(rules=4)), [*rules, Rule(0), rules[4]])[1:]
    statuses = [answer.status for answer in answers if isinstance(answer, Answer)]
    assert statuses == [0, 0, 0, 0, 3, 0, 0]


def test_state_is_kept_until_it_is_reset(board: Board) -> None:
    commands = [*run_once(), *run_once(number=1), *run_once(number=2, flags=1)]
    found = inferences(talk(board.command(MODEL), commands, 3))
    states = [by_name(inference)["state"][0] for inference in found]
    total = FEED["x"].sum()
    assert [np.count_nonzero(state == total) for state in states] == [1, 2, 1]


def test_a_board_says_hello_every_sixteen_inferences(board: Board) -> None:
    events = talk(board.command(MODEL, Orders(able=0, runs=33, taps=[])), done=99)
    assert [event.reason for event in events if isinstance(event, Hello)] == [0, 2, 2]
    assert [event for event in events if isinstance(event, Done)] == [
        Done(number, 0, 0, 0) for number in range(33)
    ]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop-byte", frame=5, byte=9),
        Fault("flip-bit", frame=5, byte=9),
        Fault("drop-frame", frame=5),
        Fault("swap", frame=5),
        Fault("text", frame=5, byte=9),
        Fault("reset", frame=5, byte=9),
        Fault("hang", frame=5),
    ],
    ids=lambda fault: fault.kind,
)
def test_damage_is_never_taken_for_a_whole_inference(board: Board, fault: Fault) -> None:
    events = talk(board.command(MODEL, Orders(able=0, runs=3, faults=[fault])), done=9)
    found = inferences(events)
    first, *others = found or [None]
    assert first is None or not first.whole
    assert all(inference.whole for inference in others if inference)
    assert len(others) == (0 if fault.kind == "hang" else 3 if fault.kind == "reset" else 2)


def test_text_garbage_and_crlf_around_whole_frames(board: Board) -> None:
    orders = Orders(able=0, runs=2, chatter=True, faults=[Fault("garbage", byte=300)])
    events = talk(board.command(MODEL, orders), done=9)
    assert [inference.whole for inference in inferences(events)] == [True, True]
    assert "inference done" in [event.line for event in events if isinstance(event, Text)]
    translated = Orders(able=0, runs=2, faults=[Fault("crlf")])
    assert any(isinstance(e, Damage) for e in talk(board.command(MODEL, translated), done=9))


def test_failed_runs_and_reboots_are_said(board: Board) -> None:
    events = talk(board.command(MODEL, Orders(faults=[Fault("fail", frame=0)])), run_once())
    assert [event.status for event in events if isinstance(event, Done)] == [1]
    command = board.command(MODEL, Orders(faults=[Fault("reboot", byte=20)]))
    starts = [event for event in talk(command, seconds=2) if isinstance(event, Hello)]
    assert len(starts) >= 3
    assert {hello.reason for hello in starts} == {0}


def test_a_board_that_is_hard_of_hearing_does_not_answer(board: Board) -> None:
    command = board.command(MODEL, Orders(faults=[Fault("deaf", byte=3)]))
    events = talk(command, [Ask(), Ask()])
    assert [event.reason for event in events if isinstance(event, Hello)] == [0, 1]


def test_large_tensors_come_in_pieces(board: Board) -> None:
    events = talk(board.command(MODEL, Orders(taps=[BITS["large"]])), run_once())
    pieces = [event for event in events if isinstance(event, Tensor)]
    assert [piece.offset for piece in pieces] == list(range(0, 78_912, 4096))
    assert [event for event in events if isinstance(event, Done)] == [Done(0, 0, 1, len(pieces))]
