"""Links that damage anything at any time: what is captured is right, or it is not there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import boardmodel
import numpy as np
import pytest
import testboard
from boardtaps import assert_same, expected
from testboard import Fault, Orders

import layertap
from layertap.core.dtypes import Array
from layertap.errors import LayertapError

pytestmark = pytest.mark.slow

TAPS = "cast/* | s2/* | row"
INFERENCES = 20


@pytest.fixture(scope="module")
def recorded(board: testboard.Board) -> bytes:
    """Some inferences of a board that runs on its own, and prints."""
    orders = Orders(able=0, receive=0, runs=INFERENCES, chatter=True)
    command = board.command(boardmodel.MODEL, orders)
    done = subprocess.run(command, stdin=-3, stdout=subprocess.PIPE, check=True, timeout=30)
    return done.stdout


@pytest.fixture(scope="module")
def known() -> list[Mapping[str, Array]]:
    """What each of them holds."""
    values = []
    with layertap.open(boardmodel.MODEL, "device") as model:
        for n in range(INFERENCES):
            x = ((np.arange(24) + n) % 7 - 3).astype(np.float32).reshape(boardmodel.SHAPE)
            feed = {"x": x, "steps": np.array([n % 7 - 3], np.int32)}
            values.append(expected(model.graph, feed)[0])
    return values


def damaged(stream: bytes, rng: np.random.Generator) -> bytes:
    """``stream`` with a few things done to it."""
    data = bytearray(stream)
    for _ in range(rng.integers(1, 6)):
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 400))
        part = bytes(data[at : at + length])
        noise = rng.integers(0, 256, length).astype(np.uint8).tobytes()
        to = int(rng.integers(len(data)))
        match rng.integers(6):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = noise
            case 3:
                data[at : at + length] = noise
            case 4:
                data[to:to] = part
            case _:
                del data[at:]
                data += stream[to:]
    return bytes(data)


@pytest.mark.parametrize("seed", range(60))
def test_one_way(
    seed: int, recorded: bytes, known: list[Mapping[str, Array]], tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    (tmp_path / "stream").write_bytes(damaged(recorded, rng))
    heard: list[tuple[int, Mapping[str, Array]]] = []
    try:
        layertap.listen(
            tmp_path / "stream",
            boardmodel.MODEL,
            TAPS,
            samples=10 * INFERENCES,
            on_inference=lambda number, values: heard.append((number, values)),
        )
    except LayertapError as error:
        assert error.hint
    for number, values in heard:
        assert len(values) == 16 + 2 + 1
        for name, value in values.items():
            assert_same(value, known[number][name], f"{name}, inference {number}")


@pytest.mark.parametrize("seed", range(12))
def test_both_ways(
    seed: int,
    on_board: Callable[..., layertap.Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("layertap.runtimes.device.link._ASK_AGAIN", 0.1)
    monkeypatch.setattr("layertap.runtimes.device.inference._ASK_AFTER", 0.1)
    rng = np.random.default_rng(seed)
    often = [int(n) for n in rng.integers(40, 200, 4)]
    faults = [
        Fault("flip-bit", frame=often[0], byte=5, every=often[0]),
        Fault("drop-frame", frame=often[1], every=often[1]),
        Fault("deaf", byte=1000, every=50 * often[2]),
        Fault("reset", frame=2 * often[3], byte=3, every=4 * often[3]),
    ]
    with on_board(orders=Orders(faults=faults, chatter=True), retries=20) as model:
        x = rng.integers(-9, 9, (12, *boardmodel.SHAPE)).astype(np.float32)
        feed = {"x": x, "steps": rng.integers(0, 4, (12, 1)).astype(np.int32)}
        run = model.capture(feed, TAPS)
        assert run.provenance["observed"]["retried"] > 0
        for i in range(12):
            one = {name: value[i] for name, value in feed.items()}
            values, _ = expected(run.taps, one)
            for name, capture in run.items():
                assert_same(capture[i : i + 1].raw[0], values[name], f"{name}, sample {i}")
