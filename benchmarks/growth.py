"""What a sample costs in runs of 10² to 10⁶ samples, and a tap in models of 10 to 1,000 taps.

Each should cost what it costs in a smaller run. ``rows()`` draws it, too: docs/growth.svg. By
sample, runs go to disk, so that memory tells what layertap itself keeps; each number of samples has
a process of its own. ``python -m benchmarks.growth litert 1000`` prints the time and the memory of
one run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import layertap
from layertap.api import Model
from layertap.core.dtypes import Array
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite

SAMPLES = tuple(10**power for power in range(2, 7))
TAPS = (10, 32, 100, 320, 1000)
MOST_GROWTH = 1.25
"""Times the cheapest of the smaller ones; noise between processes is a part of it."""
MOST_MEMORY = 1.5
BATCH = 1000
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "growth.svg"

Points = dict[int, float]


def chain(count: int) -> bytes:
    """A .tflite of ``count`` activations of four numbers."""
    tensors = [TensorSpec(f"t{i}", (1, 4)) for i in range(count + 1)]
    steps = [OperatorSpec("RELU", [i], [i + 1]) for i in range(count)]
    return write_tflite(SubgraphSpec(tensors, [0], [count], steps))


def network(count: int) -> Any:
    """A PyTorch network of ``count`` layers of four units."""
    import torch

    torch.set_num_threads(1)
    return torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(count)))


def opened(runtime: str, count: int) -> Model:
    made = network(count) if runtime == "torch" else chain(count)
    return layertap.open(made, runtime=runtime)


def batches(samples: int) -> Iterator[Array]:
    """As a generator, so that the input takes no memory."""
    batch = np.ones((min(BATCH, samples), 4), np.float32)
    return (batch for _ in range(samples // len(batch)))


def by_sample(runtime: str, samples: int) -> tuple[float, float]:
    """Seconds a sample, and the megabytes that the process took at most."""
    with tempfile.TemporaryDirectory() as folder, opened(runtime, 3) as model:
        model.capture(batches(BATCH), to=Path(folder) / "first.zarr")
        start = time.perf_counter()
        model.capture(batches(samples), to=Path(folder) / "run.zarr")
        seconds = time.perf_counter() - start
    return seconds / samples, _peak_megabytes()


def _peak_megabytes() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmHWM")) / 1e3


def by_tap(runtime: str, count: int) -> tuple[float, float]:
    """Seconds a tap of the first capture of one sample, from ``open`` on, and of one later."""
    x = np.ones((1, 4), np.float32)
    first, later = [], []
    for _ in range(3):
        made = network(count) if runtime == "torch" else chain(count)
        start = time.perf_counter()
        with layertap.open(made, runtime=runtime) as model:
            run = model.capture(x)
            first.append(time.perf_counter() - start)
            later += [_seconds(lambda: model.capture(x)) for _ in range(5)]
    return min(first) / len(run), min(later) / len(run)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _in_a_process(runtime: str, samples: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.growth", runtime, str(samples)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120)
    seconds, megabytes = json.loads(done.stdout.splitlines()[-1])
    return seconds, megabytes


def rows() -> list[dict[str, Any]]:
    """By runtime, each step beside the cheapest smaller one; the first pay the fixed price."""
    found: list[dict[str, Any]] = []
    panels: dict[str, dict[str, Points]] = {title: {} for title in PANELS}
    for runtime, name in (("torch", "PyTorch"), ("litert", "LiteRT")):
        runs = {count: _in_a_process(runtime, count) for count in SAMPLES}
        by_tap(runtime, TAPS[0])  # imports
        reads = {count: by_tap(runtime, count) for count in TAPS}
        lines = (
            {count: seconds * 1e6 for count, (seconds, _) in runs.items()},
            {count: megabytes for count, (_, megabytes) in runs.items()},
            {count: seconds * 1e6 for count, (seconds, _) in reads.items()},
            {count: seconds * 1e6 for count, (_, seconds) in reads.items()},
        )
        for title, points in zip(PANELS, lines, strict=True):
            panels[title][name] = points
            found += list(_judged(f"{name}: {title}", points))
    draw(panels)
    return found


PANELS = (
    "a run to disk, µs a sample",
    "memory of its process, MB in all",
    "open and first capture, µs a tap",
    "one later capture, µs a tap",
)


def _judged(work: str, points: Points) -> Iterator[dict[str, Any]]:
    most = MOST_MEMORY if "memory" in work else MOST_GROWTH
    least = next(iter(points.values()))
    for count, value in points.items():
        bar = None if count == min(points) else most
        contender = f"{count:,} of them, {value:,.3g}"
        yield {"work": work, "contender": contender, "ratio": value / least, "bar": bar}
        least = min(least, value)


def draw(panels: dict[str, dict[str, Points]]) -> None:
    """The picture of the documents."""
    import matplotlib
    from matplotlib.figure import Figure

    settings = {"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(8, 5.4), layout="constrained")
        for axes, (title, lines) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
            for name, points in lines.items():
                axes.plot(list(points), list(points.values()), marker="o", label=name)
            axes.set_xscale("log")
            if "MB" in title:
                axes.set_ylim(bottom=0)
            else:
                values = [value for points in lines.values() for value in points.values()]
                axes.set_yscale("log")
                axes.set_ylim(_decade(min(values), np.floor), _decade(max(values), np.ceil))
            axes.minorticks_off()
            axes.set_xlabel("taps" if title.endswith("tap") else "samples")
            axes.set_title(title)
            axes.grid(alpha=0.3)
            axes.legend(frameon=False)
        figure.savefig(PICTURE, metadata={"Date": None})


def _decade(value: float, rounded: Callable[[float], float]) -> float:
    """The power of ten below or above."""
    return float(10 ** rounded(np.log10(value)))


if __name__ == "__main__":
    print(json.dumps(by_sample(sys.argv[1], int(sys.argv[2]))))
