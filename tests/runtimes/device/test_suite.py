"""The conformance suite on boards of this machine."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

import boardmodel
import numpy as np
import pytest
import testboard
from boardtaps import expected
from hypothesis import strategies as st
from tflm_tree import HOST, Tree
from toolchain import tool

import layertap
from layertap.core.dtypes import Array
from layertap.core.graph import COMPUTED
from layertap.testing.runtime import Case, RuntimeSuite
from layertap.testing.tflite_cases import KnownModel, known_model, known_models

ISOLATION = """
import layertap
from layertap.testing.tflite_cases import known_model
known = known_model()
with layertap.open(known.data, runtime="device", port={port!r}) as model:
    model.capture(known.feed)
"""


class BoardSuite(RuntimeSuite):
    runtime = "device"

    @pytest.fixture(autouse=True)
    def _built(self, board: testboard.Board) -> None:
        self.board = board

    @property
    def isolation(self) -> str:  # type: ignore[override]
        return ISOLATION.format(port=self.port(known_model().data))

    def port(self, data: bytes) -> str:
        return "exec:" + shlex.join(self.board.command(data))

    def case_of(
        self, data: bytes, feed: Mapping[str, Array], oracle: Mapping[str, Array], *outputs: str
    ) -> Case:
        return Case(
            source=data,
            feed=feed,
            oracle=oracle,
            outputs=lambda: {name: oracle[name] for name in outputs},
            fingerprint=lambda: hashlib.sha256(data).hexdigest(),
            options={"port": self.port(data)},
        )

    def known(self, known: KnownModel) -> Case:
        return self.case_of(known.data, known.feed, known.oracle, *known.outputs)

    def random_cases(self) -> st.SearchStrategy[Case]:
        return known_models().map(self.known)


class TestBatched(BoardSuite):
    """Two samples at a time, quantized tensors among them."""

    def make_case(self) -> Case:
        return self.known(known_model())


class TestEveryType(BoardSuite):
    """One sample at a time: every dtype, loops, branches, a state, a tensor larger than a frame."""

    def make_case(self) -> Case:
        feed = boardmodel.FEED
        with layertap.open(boardmodel.MODEL, "device") as model:
            outputs = [tap.name for tap in model.graph.outputs]
        return self.case_of(boardmodel.MODEL, feed, computed(feed), *outputs)

    def random_cases(self) -> st.SearchStrategy[Case]:
        numbers = st.integers(-4, 4).map(float)
        return st.tuples(st.lists(numbers, min_size=24, max_size=24), st.integers(0, 4)).map(
            lambda drawn: self._fed(*drawn)
        )

    def _fed(self, numbers: list[float], steps: int) -> Case:
        x = np.array(numbers, np.float32).reshape(boardmodel.SHAPE)
        feed: dict[str, Any] = {"x": x, "steps": np.array([steps], np.int32)}
        return self.case_of(boardmodel.MODEL, feed, computed(feed), "memory", "grown", "either")


def computed(feed: Mapping[str, Array]) -> Mapping[str, Array]:
    """What the model computes, by tap name."""
    with layertap.open(boardmodel.MODEL, "device") as model:
        values, _ = expected(model.graph, feed)
        return {tap.name: values[tap.name] for tap in model.graph if tap.kind in COMPUTED}


class TestOnTflm(BoardSuite):
    """The firmware that layertap generates, with the real micro interpreter in it."""

    pytestmark = pytest.mark.timeout(600)
    examples = 5

    @pytest.fixture(autouse=True)
    def _built(self, firmware: str) -> None:
        self.firmware = firmware

    def port(self, data: bytes) -> str:
        assert data == known_model().data
        return self.firmware

    def make_case(self) -> Case:
        return self.known(known_model())

    def random_cases(self) -> st.SearchStrategy[Case]:
        """The one model that the firmware has, fed with anything."""
        known = known_model()
        (name, value), numbers = next(iter(known.feed.items())), st.integers(-50, 50)
        drawn = st.lists(numbers, min_size=value.size, max_size=value.size)
        return drawn.map(
            lambda fed: self._fed({name: np.array(fed, np.float32).reshape(value.shape)})
        )

    def _fed(self, feed: Mapping[str, Array]) -> Case:
        known = known_model()
        with layertap.open(known.data, "tflm") as host:
            oracle = {name: capture.raw for name, capture in host.capture(feed).items()}
        return self.case_of(known.data, feed, oracle, *known.outputs)


@pytest.fixture(scope="module")
def firmware(tflm_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The port of a board of this machine, or an emulated one, that runs the known model."""
    pytest.importorskip("tflite_micro")
    folder = tmp_path_factory.mktemp("firmware")
    platform = "generic" if tflm_tree.machine == HOST else "qemu-mps2"
    layertap.generate_firmware(known_model().data, folder, platform)
    command = [tool("make"), "-s", f"TFLM_DIR={tflm_tree.folder}"]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    (program,) = (path for path in (folder / "build").iterdir() if path.stem == "firmware")
    return tflm_tree.port(program)
