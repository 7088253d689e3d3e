"""Listening to a board, against the time that full-speed USB takes to carry the same bytes.

A program writes what a board has sent as fast as it can; the ratio is the share of a link's time
that decoding, checking and putting together take. Below 1 the link decides, not layertap.
"""

from __future__ import annotations

import shlex
import statistics
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from benchmarks.timing import rounds_of

from layertap.firmware.wire.messages import Done, Hello, Message, Tensor, mask_bytes, pack
from layertap.listening import listen, listening
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite

ROUNDS = 7
BAR = 0.5
USB = 12e6 / 8
"""Bytes a second of full-speed USB, as if none were spent on its own protocol."""


@dataclass(frozen=True)
class Work:
    """``count`` inferences of one int8 tensor of ``elements``, in frames of ``piece`` bytes."""

    name: str
    elements: int
    piece: int
    count: int

    def model(self) -> bytes:
        tensors = [
            TensorSpec(name, (1, self.elements), "int8", scales=[1.0], zero_points=[0])
            for name in ("x", "y")
        ]
        return write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("RELU", [0], [1])]))

    def stream(self) -> bytes:
        """What a board sends of them."""
        model, numbers = self.model(), np.random.default_rng(0)
        value = numbers.integers(-128, 128, self.elements).astype(np.int8).tobytes()
        hello = Hello(
            reason=0,
            able=0,
            receive=0,
            rules=0,
            model=zlib.crc32(model),
            size=len(model),
            tensors=2,
            arena=0,
            used=0,
            every=1,
            name="benchmark",
            mask=mask_bytes([1], 2),
        )
        messages: list[Message] = [hello]
        for inference in range(self.count):
            place = (inference, 0, 1, 0, "int8", (1, self.elements))
            starts = range(0, self.elements, self.piece)
            messages += [Tensor(*place, at, value[at : at + self.piece]) for at in starts]
            messages.append(Done(inference, 0, 1, len(starts)))
        return b"".join(pack(message, number) for number, message in enumerate(messages))


WORKS = (
    Work("tensors of 72 KiB in frames of 4 KiB", 73_728, 4096, 200),
    Work("tensors of 72 KiB in frames of 256 bytes", 73_728, 256, 60),
    Work("tensors of 1 KiB, one a frame", 1024, 4096, 3000),
)


def plain(path: Path) -> None:
    """Read the same bytes from the same program, and do nothing with them."""
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while process.stdout.read(1 << 18):
            pass


def heard(path: Path, model: bytes) -> None:
    with listening(f"exec:cat {shlex.quote(str(path))}", model) as listener:
        for _ in listener:
            pass


def stored(path: Path, model: bytes) -> None:
    to = path.with_name("run.zarr")
    listen(f"exec:cat {shlex.quote(str(path))}", model, to=to, overwrite=True)


def rows() -> list[dict[str, object]]:
    """One row per work and contender: the share of the time on USB, and layertap's bar."""
    with tempfile.TemporaryDirectory(prefix="device-bench-") as folder:
        return [row for work in WORKS for row in _measure(work, Path(folder) / "stream")]


def _measure(work: Work, path: Path) -> list[dict[str, object]]:
    stream, model = work.stream(), work.model()
    path.write_bytes(stream)
    contenders = {
        "read and thrown away": partial(plain, path),
        "layertap": partial(heard, path, model),
        "layertap, written to disk": partial(stored, path, model),
    }
    found = []
    for name, seconds in rounds_of(contenders, ROUNDS).items():
        taken = statistics.median(seconds)
        found.append(
            {
                "work": f"{work.name} / 12 Mbit/s USB",
                "contender": f"{name}, {len(stream) / taken / 1e6:.0f} MB/s",
                "ratio": taken / (len(stream) / USB),
                "bar": BAR if name.startswith("layertap") else None,
            }
        )
    return found
