"""Generated firmware with a real TensorFlow Lite Micro, run here or in an emulator: every tensor
through the runtime ``device`` against the micro interpreter of the host, or NumPy."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tapmodels
from tflm_tree import HOST, Tree

import layertap
from layertap.api import Model
from layertap.core.dtypes import Array
from layertap.core.graph import TapPoint
from layertap.onchip import generate_firmware

HERE = Path(__file__).parent
MODELS = (
    "tflm/person_detect",
    "tflm/micro_speech_quantized",
    "tflm/hello_world_int8",
    "tflm/hello_world_float",
    "tflm/mnist_lstm_int8",
    "mlperf-tiny/ad01_float",
    "mlperf-tiny/kws_int8",
)
SMALL = {"loops": tapmodels.loops, "counter": tapmodels.counter}
TOLERANCE = 2e-6
"""Of floats; integers are equal."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Workshop:
    """Makes firmware, each once."""

    def __init__(self, tree: Tree, folder: Path, shared: Path | None) -> None:
        self.tree, self.folder, self.shared = tree, folder, shared
        self.firmware: Callable[[str], Path] = cache(self._firmware)

    def model(self, name: str) -> Path:
        if name in SMALL:
            path = self.folder / f"{name}.tflite"
            path.write_bytes(SMALL[name]())
            return path
        if self.shared is None:
            pytest.skip("real models are kept outside the repository and are not here")
        return self.shared / "models" / f"{name}.tflite"

    def generated(self, name: str) -> Path:
        """The folder of its sources, as ``layertap firmware`` writes them."""
        folder = self.folder / Path(name).name
        platform = "generic" if self.tree.machine == HOST else "qemu-mps2"
        generate_firmware(self.model(name), folder, platform, overwrite=True)
        return folder

    def _firmware(self, name: str) -> Path:
        folder = self.generated(name)
        sources = sorted(folder.glob("*.cpp"))
        return self.tree.program(sources, folder / "firmware", f"-I{folder}")

    def open(self, name: str, **options: object) -> Model:
        port = self.tree.port(self.firmware(name))
        return layertap.open(self.model(name), "device", port=port, timeout=60, **options)


@pytest.fixture(scope="module")
def workshop(tflm_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    shared = HERE.parents[2].parent / "shared"
    folder = tmp_path_factory.mktemp("firmware")
    return Workshop(tflm_tree, folder, shared if shared.is_dir() else None)


def feed(model: Model, samples: int = 2) -> dict[str, Array]:
    random = np.random.default_rng(5)
    made = {}
    for tap in model.graph.inputs:
        assert tap.shape is not None
        shape = (samples, *(size or 1 for size in tap.shape[1:]))
        whole = np.dtype(tap.dtype).kind == "i"
        made[tap.name] = (
            random.integers(-128, 128, shape).astype(tap.dtype)
            if whole
            else random.standard_normal(shape).astype(tap.dtype)
        )
    return made


def everything(model: Model) -> list[str]:
    return [tap.name for tap in model.graph if tap.kind != "weight" and not tap.untappable]


def differences(model: Model, ours: Mapping, theirs: Mapping) -> list[str]:
    """Taps whose values are not what they should be."""
    wrong = []
    for name in theirs:
        got, wanted = ours[name].raw, theirs[name].raw
        exact = wanted.dtype.kind != "f"
        equal = np.array_equal if exact else lambda a, b: np.allclose(a, b, rtol=0, atol=TOLERANCE)
        if got.dtype != wanted.dtype or got.shape != wanted.shape or not equal(got, wanted):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_that_of_the_micro_interpreter(workshop: Workshop, name: str) -> None:
    with layertap.open(workshop.model(name), "tflm") as host, workshop.open(name) as board:
        inputs, taps = feed(host), everything(host)
        assert set(taps) <= set(everything(board))
        wanted = host.capture(inputs, taps=taps)
        seen = board.capture(inputs, taps=taps)
        assert len(seen) == len(taps) > 3
        assert differences(board, seen, wanted) == []


def test_the_state_goes_on_from_sample_to_sample(workshop: Workshop) -> None:
    name = "tflm/mnist_lstm_int8"
    with (
        layertap.open(workshop.model(name), "tflm", keep_state=True) as host,
        workshop.open(name, keep_state=True) as board,
    ):
        inputs, taps = feed(host, 3), everything(host)
        states = [tap for tap in host.graph if tap.kind == "state"]
        wanted = host.capture(inputs, taps=taps)
        assert differences(board, board.capture(inputs, taps=taps), wanted) == []
        assert states
        assert not all(np.array_equal(*wanted[tap.name].raw[:2]) for tap in states)


@pytest.mark.parametrize("steps", [0, 1, 3, 90])
def test_every_run_of_the_subgraphs_of_while_and_if(workshop: Workshop, steps: int) -> None:
    x = np.random.default_rng(steps).standard_normal((1, tapmodels.WIDTH)).astype(np.float32)
    wanted = tapmodels.loop_values(x, steps)
    with workshop.open("loops") as board:
        inner = [tap for tap in board.graph if tap.subgraph > 0 and tap.kind != "weight"]
        inputs = {"x": x, "steps": np.array([steps], np.int32)}
        run = board.capture(inputs, taps=everything(board))
        assert np.array_equal(run["grown"].raw[0].reshape(-1), (x * 2.0**steps).reshape(-1))
        assert {tap.name for tap in inner} >= set(wanted)
        for tap in inner:
            check_runs(tap, run[tap.name].raw, wanted.get(tap.name, []))


def check_runs(tap: TapPoint, raw: Array, wanted: list[Array]) -> None:
    got = list(raw[0]) if len(raw) else []
    assert len(got) == len(wanted), tap.name
    assert all(map(np.array_equal, got, wanted)), tap.name


def test_resource_variables_start_anew_with_each_sample(workshop: Workshop) -> None:
    x = np.array([1, 2, 4], np.float32)
    with workshop.open("counter") as board:
        assert board.capture({"x": x}, taps="total")["total"].raw.ravel().tolist() == [11, 12, 14]
    with workshop.open("counter", keep_state=True) as board:
        assert board.capture({"x": x}, taps="total")["total"].raw.ravel().tolist() == [11, 13, 17]


def test_slices_and_reductions(workshop: Workshop) -> None:
    name = "tflm/hello_world_float"
    with layertap.open(workshop.model(name), "tflm") as host:
        inputs = feed(host)
        tap = next(tap for tap in host.graph if tap.op == "FULLY_CONNECTED")
        whole = host.capture(inputs, taps=tap.name)[tap.name].raw
    flat = whole.reshape(len(whole), -1)
    with workshop.open(name, slices={tap.name: "3:9"}) as board:
        found = board.capture(inputs, taps=tap.name)[tap.name].raw
        assert np.array_equal(found, flat[:, 3:9])
    with workshop.open(name, reduce={tap.name: "summary"}) as board:
        found = board.capture(inputs, taps=tap.name)[tap.name].raw
        wanted = np.stack([flat.min(1), flat.max(1), flat.mean(1)], 1)
        assert np.allclose(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", [*MODELS, "loops"])
def test_the_arena_is_the_same_to_the_byte(workshop: Workshop, name: str) -> None:
    folder, tree = workshop.generated(name), workshop.tree
    sources = [HERE / "tflm_arena.cc", folder / "model.cpp"]
    program = tree.program(sources, workshop.folder / "arena", f"-I{folder}")
    with subprocess.Popen(
        tree.command(program), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        line = run.stdout.readline()
        run.kill()
    plain, tapped, differ, seen = map(int, re.findall(r"\d+", line))
    assert plain == tapped > 0
    assert differ == 0
    assert seen > 0
