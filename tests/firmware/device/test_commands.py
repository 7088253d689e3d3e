"""A generated firmware on a real TensorFlow Lite Micro gets commands that do not fit, under the
sanitizers; needs a tree for this machine."""

from __future__ import annotations

import random
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import tapmodels
from tflm_tree import HOST, Tree
from toolchain import SANITIZERS

from layertap.firmware.wire.assembly import Assembly
from layertap.firmware.wire.decoder import Decoder, Event
from layertap.firmware.wire.frames import to_frame
from layertap.firmware.wire.messages import (
    FAILED,
    INPUTS_DAMAGED,
    NO_ROOM,
    OK,
    OUT_OF_RANGE,
    UNABLE,
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
    pack,
)
from layertap.onchip import generate_firmware

STEPS = np.array([2], np.int32).tobytes()
X = np.arange(-3, 5, dtype=np.float32).tobytes()
CHECK = zlib.crc32(STEPS + X)
BITS = 20
"""Tensors of the model."""
GROWN, MANY = 3, 5
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def program(tflm_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if tflm_tree.machine != HOST:
        pytest.skip("the sanitizers are there for this machine only")
    folder = tmp_path_factory.mktemp("commands")
    (folder / "loops.tflite").write_bytes(tapmodels.loops())
    source = folder / "source"
    generate_firmware(folder / "loops.tflite", source, "generic", rules=2)
    flags = (f"-I{source}", *SANITIZERS)
    return tflm_tree.program(sorted(source.glob("*.cpp")), folder / "firmware", *flags)


def answers(program: Path, *commands: Message | bytes) -> list[Event]:
    """Everything that it says until its input ends."""
    sent = b"".join(
        command if isinstance(command, bytes) else pack(command, number)
        for number, command in enumerate(commands)
    )
    done = subprocess.run([program], input=sent, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    decoder = Decoder()
    events = [*decoder.feed(done.stdout), *decoder.finish()]
    assert decoder.counters.damaged == decoder.counters.lost == 0
    return events


def statuses(events: list[Event]) -> list[tuple[int, int, int]]:
    return [(e.command, e.of, e.status) for e in events if isinstance(e, Answer)]


INPUTS = (Input(0, 0, STEPS), Input(1, 0, X[:5]), Input(1, 5, X[5:]))


def test_an_inference(program: Path) -> None:
    select = Select(1, 0, bytes((1 << GROWN, 0, 0)))
    events = answers(program, select, *INPUTS, Run(7, 0, CHECK))
    assert statuses(events) == [(Select.TYPE, 0, OK)]
    assembly = Assembly()
    (inference,) = filter(None, map(assembly.take, events))
    assert (inference.whole, inference.number, list(inference.tensors)) == (True, 7, [(0, GROWN)])
    assert inference.tensors[0, GROWN][0].array.tolist() == [[-12, -8, -4, 0, 4, 8, 12, 16]]


def test_inputs_that_are_not_there_yet(program: Path) -> None:
    events = answers(program, *INPUTS[:2], Run(0, 0, CHECK), *INPUTS, Run(1, 0, CHECK))
    assert statuses(events) == [(Run.TYPE, 2, INPUTS_DAMAGED)]
    assert [event.inference for event in events if isinstance(event, Done)] == [1]


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (Input(2, 0, b""), OUT_OF_RANGE),
        (Input(1, 32, b"x"), OUT_OF_RANGE),
        (Input(1, 1, X), OUT_OF_RANGE),
        (Input(1, 2**32 - 1, b"xx"), OUT_OF_RANGE),
        (Select(0, 0, b"\1"), OUT_OF_RANGE),
        (Select(1, 3, b"\1"), OUT_OF_RANGE),
        (Select(1, 2**32 - 1, b"\1\1"), OUT_OF_RANGE),
        (Select(1, 0, b"\1\1\1\1"), OUT_OF_RANGE),
        (Rule(BITS + 1, 1, 2), OUT_OF_RANGE),
        (Rule(2**32 - 1, 1, 2), OUT_OF_RANGE),
        (Rule(1, 0, 2), OUT_OF_RANGE),
        (Rule(1, 1, 4), UNABLE),
        (Rule(1, 1, 3, 65), NO_ROOM),
        (Run(0, 0, CHECK ^ 1), INPUTS_DAMAGED),
        (to_frame(bytes((70, 0))), UNABLE),
    ],
)
def test_commands_that_do_not_fit(program: Path, command: Message | bytes, status: int) -> None:
    events = answers(program, command, Ask())
    kind = 70 if isinstance(command, bytes) else command.TYPE
    assert statuses(events) == [(kind, 0, status)]
    assert [event.reason for event in events if isinstance(event, Hello)] == [0, 1]


def test_rules(program: Path) -> None:
    """A third one has no room; a slice that does not fit its tensor is said, and its tensor not
    sent; without rules all is whole again."""
    both = Select(1, 0, bytes((1 << GROWN | 1 << MANY, 0, 0)))
    rules = (Rule(GROWN + 1, 1, 1, 6, 2), Rule(MANY + 1, 1, 1, 0, 2), Rule(1, 1, 2))
    events = answers(
        program, both, *rules, *INPUTS, Run(0, 0, CHECK), Rule(0), *INPUTS, Run(1, 0, CHECK)
    )
    assert [status for *_, status in statuses(events)] == [OK, OK, OK, NO_ROOM, OUT_OF_RANGE, OK]
    sent = [(e.inference, e.tensor, e.form, e.payload) for e in events if isinstance(e, Tensor)]
    grown = np.array([-12, -8, -4, 0, 4, 8, 12, 16], np.float32)
    assert sent == [
        (0, GROWN, 1, grown[6:].tobytes()),
        (1, GROWN, 0, grown.tobytes()),
        (1, MANY, 0, b"\1"),
    ]
    assert [e.tensors for e in events if isinstance(e, Done)] == [1, 2]


def test_any_bytes(program: Path) -> None:
    """Whatever comes, it goes on; FAILED would mean that the interpreter went wrong."""
    source = random.Random(3)
    events = answers(program, *(_anything(source) for _ in range(3000)), *INPUTS, Ask())
    assert isinstance(events[-1], Hello)
    assert FAILED not in {status for *_, status in statuses(events)}
    assert sum(isinstance(event, Done) for event in events) > 100


def _anything(source: random.Random) -> bytes:
    number = source.choice([0, 1, 3, BITS, BITS + 1, 64, 65, 2**31, 2**32 - 1])
    other = source.choice([0, 1, 2, 7, 31, 32, 2**32 - 1])
    data = source.randbytes(source.choice([0, 1, 3, 32, 33, 400, 900]))
    limits = source.choices([0.0, -1.0, 3e38, float("nan"), float("inf")], k=2)
    rule = Rule(number, source.choice([0, 1, other]), source.randrange(5), other, number, *limits)
    kinds = (Select(other, number, data), rule, Input(source.randrange(1, 4), number, data), Ask())
    frame = pack(source.choice(kinds), source.randrange(256))
    run = b"".join(pack(part, 0) for part in (*INPUTS, Run(number, other & 1, CHECK)))
    spoilt = bytearray(frame)
    spoilt[source.randrange(len(frame))] = source.randrange(256)
    return source.choice([frame, bytes(spoilt), to_frame(data), data, run])
