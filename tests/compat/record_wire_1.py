"""Records what the test board says in wire version 1, on an emulated Cortex-M3.

    PYTHONPATH=tests/firmware python tests/compat/record_wire_1.py

writes wire-1.bin.gz, the bytes of the board, and wire-1.json.gz, what they have to be decoded to:
computed with NumPy, not by the decoder. It was run once and is kept to show how; a later format
gets a recording of its own.
"""

from __future__ import annotations

import gzip
import json
import os
import selectors
import subprocess
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boardmodel
import numpy as np
from boardmodel import FEED, MODEL
from testboard import Fault, Orders, emulated_board

from layertap.core.dtypes import Array
from layertap.firmware.wire.decoder import Decoder
from layertap.firmware.wire.messages import (
    HISTOGRAM,
    SLICE,
    SUMMARY,
    WHOLE,
    Ask,
    Done,
    Input,
    Message,
    Rule,
    Run,
    Select,
    mask_bytes,
    pack,
)
from layertap.tflite.model import parse

FOLDER = Path(__file__).parent
PLACES = {
    tensor.name: (subgraph.index, tensor.index)
    for subgraph in parse(MODEL).subgraphs
    for tensor in subgraph.tensors
}
BITS = {name: bit for bit, name in enumerate(PLACES)}
NAME = "recorded ✓"
SECOND: Mapping[str, Array] = {"x": FEED["x"][::-1] * 2, "steps": np.array([0], np.int32)}
FAILS = 20
Expected = dict[str, Any]


def run(feed: Mapping[str, Array], number: int) -> list[Message]:
    """The commands that run one inference."""
    parts = [value.tobytes() for value in feed.values()]
    inputs: list[Message] = [Input(at, 0, part) for at, part in enumerate(parts)]
    return [*inputs, Run(number, 1 if number == 0 else 0, zlib.crc32(b"".join(parts)))]


def select(*names: str) -> Select:
    return Select(1, 0, mask_bytes((BITS[name] for name in names), len(BITS)))


def entry(name: str, value: Array, iteration: int = 0, **form: float) -> Expected:
    """What one tensor is decoded to."""
    place = {"subgraph": PLACES[name][0], "tensor": PLACES[name][1], "iteration": iteration}
    whole = {"form": WHOLE, "first": 0, "low": 0.0, "high": 0.0} | form
    described = {"dtype": value.dtype.name, "shape": value.shape}
    return {**place, **whole, **described, "bytes": np.ascontiguousarray(value).tobytes().hex()}


def entries(values: Mapping[str, list[Array]], *names: str) -> list[Expected]:
    return [
        entry(name, value, iteration)
        for name in names
        for iteration, value in enumerate(values[name])
    ]


def reduced(values: Mapping[str, list[Array]]) -> list[Expected]:
    """A slice, a summary and a histogram, computed with NumPy."""
    (x,), (large,), (small,) = (values[name] for name in ("x", "large", "cast/int8"))
    counts = np.histogram(small, bins=4, range=(-8.0, 8.0))[0].astype(np.uint32)
    mean = np.float32(x.astype(np.float64).sum() / x.size)
    return [
        entry("large", large.reshape(-1)[100:103], form=SLICE, first=100),
        entry("x", np.array([x.min(), x.max(), mean], np.float64), form=SUMMARY),
        entry("cast/int8", counts, form=HISTOGRAM, low=-8.0, high=8.0),
    ]


def dialogue() -> tuple[list[Message], list[Expected]]:
    """The commands, and the inferences that they lead to."""
    first, state = boardmodel.values(FEED)
    second, _ = boardmodel.values(SECOND, state)
    small = [name for name in first if name != "large"]
    rules = [
        Rule(BITS["large"] + 1, 1, SLICE, 100, 3),
        Rule(BITS["x"] + 1, 1, SUMMARY),
        Rule(BITS["cast/int8"] + 1, 1, HISTOGRAM, 4, 0, -8.0, 8.0),
    ]
    commands: list[Message] = [Ask(), select(*small), *run(FEED, 0), *run(SECOND, 1)]
    commands += [*rules, select("large", "x", "cast/int8"), *run(FEED, 2)]
    commands += [Rule(0), select("large"), *run(FEED, 3), Select(1, 99, b"\1")]
    commands.append(select("x", "six", "odd"))
    found = [entries(first, *small), entries(second, *small), reduced(first)]
    found.append(entries(first, "large"))
    for number in range(4, FAILS + 1):
        commands += run(FEED, number)
        found.append(entries(first, "x", "six", "odd"))
    # It fails after half of its operators.
    found[FAILS] = entries(first, "x")
    return commands, [
        {"number": number, "status": int(number == FAILS), "tensors": tensors}
        for number, tensors in enumerate(found)
    ]


def recorded(commands: list[Message], done: int) -> bytes:
    """What the board says until so many inferences have ended and it is silent."""
    stream = b"".join(pack(command, at) for at, command in enumerate(commands))
    orders = Orders(chatter=True, name=NAME, faults=[Fault("fail", frame=FAILS)])
    said, decoder, ended = bytearray(), Decoder(), 0
    with tempfile.TemporaryDirectory() as folder:
        command = emulated_board(Path(folder)).command(MODEL, orders)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as board:
            assert board.stdin is not None
            assert board.stdout is not None
            board.stdin.write(stream)
            board.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(board.stdout, selectors.EVENT_READ)
                while selector.select(timeout=20 if ended < done else 2):
                    data = os.read(board.stdout.fileno(), 1 << 16)
                    said += data
                    ended += sum(isinstance(event, Done) for event in decoder.feed(data))
            board.kill()
    assert ended == done, f"{ended} of {done} inferences ended"
    return bytes(said)


def main() -> None:
    commands, inferences = dialogue()
    said = recorded(commands, len(inferences))
    hello = {"model": zlib.crc32(MODEL), "size": len(MODEL), "tensors": len(PLACES), "name": NAME}
    document = json.dumps({"hello": hello, "inferences": inferences}, ensure_ascii=False)
    for name, data in (("bin", said), ("json", document.encode())):
        (FOLDER / f"wire-1.{name}.gz").write_bytes(gzip.compress(data, mtime=0))
    print(f"{len(said):,} bytes in {len(inferences)} inferences")


if __name__ == "__main__":
    main()
