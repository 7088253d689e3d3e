"""What a firmware said in wire version 1 is still decoded, into the same values.

The recording comes from a Cortex-M3 with layertap.h; record_wire_1.py made it.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from layertap.firmware.wire.assembly import Assembly, Inference
from layertap.firmware.wire.decoder import Damage, Decoder, Event, Text
from layertap.firmware.wire.messages import Answer, Hello, mask_bits

FOLDER = Path(__file__).parent


def recording() -> bytes:
    return gzip.decompress((FOLDER / "wire-1.bin.gz").read_bytes())


def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress((FOLDER / "wire-1.json.gz").read_bytes()))
    return found


@pytest.fixture(scope="module")
def events() -> list[Event]:
    decoder = Decoder()
    return [*decoder.feed(recording()), *decoder.finish()]


@pytest.fixture(scope="module")
def inferences(events: list[Event]) -> list[Inference]:
    assembly = Assembly()
    return [found for event in events if (found := assembly.take(event)) is not None]


def test_every_value_is_the_one_that_was_recorded(inferences: list[Inference]) -> None:
    wanted = expected()["inferences"]
    assert [found.number for found in inferences] == [entry["number"] for entry in wanted]
    for found, entry in zip(inferences, wanted, strict=True):
        assert (found.whole, found.status) == (True, entry["status"]), found.why
        values = {
            (*place, iteration): value
            for place, iterations in found.tensors.items()
            for iteration, value in enumerate(iterations)
        }
        places = [(t["subgraph"], t["tensor"], t["iteration"]) for t in entry["tensors"]]
        assert sorted(values) == sorted(places)
        for place, tensor in zip(places, entry["tensors"], strict=True):
            value = values[place]
            assert value.array.dtype.name == tensor["dtype"], place
            assert list(value.array.shape) == tensor["shape"], place
            assert value.array.tobytes().hex() == tensor["bytes"], place
            for key in ("form", "first", "low", "high"):
                assert getattr(value, key) == tensor[key], place


def test_nothing_of_it_is_damage(events: list[Event]) -> None:
    assert not [event for event in events if isinstance(event, Damage)]


def test_what_the_board_said_of_itself(events: list[Event]) -> None:
    hellos = [event for event in events if isinstance(event, Hello)]
    assert [hello.reason for hello in hellos] == [0, 1, 2]
    for hello in hellos:
        for key, value in expected()["hello"].items():
            assert getattr(hello, key) == value
    assert len(mask_bits(hellos[-1].mask)) == 3


def test_answers_and_text(events: list[Event]) -> None:
    answers = [event for event in events if isinstance(event, Answer)]
    assert [answer.status for answer in answers if answer.command == 67] == [0, 0, 0, 0]
    assert [answer.status for answer in answers if answer.command == 66] == [0, 0, 0, 2, 0]
    lines = [event.line for event in events if isinstance(event, Text)]
    assert lines.count("inference done") == len(expected()["inferences"])


@pytest.mark.parametrize("size", [1, 61, 4096])
def test_in_portions(size: int, events: list[Event]) -> None:
    stream, decoder = recording(), Decoder()
    found = [
        event
        for at in range(0, len(stream), size)
        for event in decoder.feed(stream[at : at + size])
    ]
    assert [*found, *decoder.finish()] == events
