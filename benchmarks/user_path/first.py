"""What is measured once in a process: ``python -m benchmarks.user_path.first torch 0``.

Prints what each contender took, in seconds, as JSON. What is imported inside of a function is a
part of what is timed, or of another runtime.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def torch(number: str) -> dict[str, float]:
    """The first capture of a network, layertap's own imports included. PyTorch prepares its kernels
    in a pass before."""
    import torch
    from benchmarks.networks import NETWORKS

    torch.set_num_threads(1)
    network = NETWORKS[int(number)]
    net, x = network.prepared()

    def capture() -> None:
        import layertap

        with layertap.open(net) as model:
            axes = {model.session.inputs[0].name: network.axis} if network.axis else None
            model.capture(x, batch_axis=axes)

    with torch.no_grad():
        net(x)
        forward = _seconds(lambda: (net(x), net(x)))
    return {"two forward passes": forward, "layertap": _seconds(capture)}


def tflite(runtime: str, path: str) -> dict[str, float]:
    """From ``open`` to the first values of a file."""
    import numpy as np

    import layertap
    from layertap.api import open as _  # noqa: F401  # what open is kept in

    sample = np.zeros(_shape(path), np.int8)

    def first() -> None:
        run = layertap.open(path, runtime=runtime).capture(sample)
        assert all(len(capture.raw) for capture in run.values())

    return {"layertap": _seconds(first)}


def _shape(path: str) -> list[int]:
    from layertap.tflite.model import parse

    graph = parse(Path(path).read_bytes()).subgraphs[0]
    return [int(size) for size in graph.tensors[graph.inputs[0]].shape]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    measure = {"torch": torch, "tflite": tflite}[sys.argv[1]]
    print(json.dumps(measure(*sys.argv[2:])))
