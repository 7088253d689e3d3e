"""Files of several signatures: their names, their order, and `file#signature`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from click.testing import CliRunner

import layertap
from layertap.cli import main
from layertap.errors import FeedError, SourceError
from layertap.testing.tflite import (
    OperatorSpec,
    SignatureSpec,
    SubgraphSpec,
    TensorSpec,
    write_tflite,
)

X = np.array([[1, 2]], np.float32)
Y = np.array([[10, 30]], np.float32)


def two_signatures() -> bytes:
    """Two differences; the second subgraph has its inputs the other way round than its signature,
    and a tensor that is called as an output of the signature."""
    first = SubgraphSpec(
        [TensorSpec(f"enc_{name}", (1, 2)) for name in ("a", "b", "out")],
        [0, 1],
        [2],
        [OperatorSpec("SUB", [0, 1], [2])],
    )
    second = SubgraphSpec(
        [TensorSpec(f"dec_{name}", (1, 2)) for name in ("b", "a", "half", "out")],
        [0, 1],
        [2, 3],
        [OperatorSpec("SUB", [1, 0], [2]), OperatorSpec("ADD", [2, 2], [3])],
    )
    signatures = [
        SignatureSpec("enc", {"x": 0, "y": 1}, {"code": 2}),
        SignatureSpec("dec", {"x": 1, "y": 0}, {"doubled": 3, "x": 2}, subgraph=1),
    ]
    return write_tflite(first, second, signatures=signatures)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two.tflite"
    path.write_bytes(two_signatures())
    return path


def by_hand() -> dict[str, np.ndarray]:
    runner = Interpreter(model_content=two_signatures()).get_signature_runner("dec")
    found: dict[str, np.ndarray] = runner(x=X, y=Y)
    return found


@pytest.mark.slow
def test_a_tuple_goes_in_the_order_of_the_signature(file: Path) -> None:
    with layertap.open(file, "litert", signature="dec") as model:
        assert [spec.name for spec in model.session.inputs] == ["s1/dec_a", "s1/dec_b"]
        run = model.capture((X, Y))
    np.testing.assert_array_equal(run["s1/dec_out"].raw, by_hand()["doubled"])
    np.testing.assert_array_equal(run["s1/dec_half"].raw, X - Y)
    with layertap.open(file, "litert") as model:
        np.testing.assert_array_equal(model.capture((X, Y))["enc_out"].raw, X - Y)


@pytest.mark.slow
def test_names_of_the_signature_go_for_inputs_and_outputs(file: Path) -> None:
    with layertap.open(file, "litert", signature="dec") as model:
        for feed in ({"x": X, "y": Y}, {"s1/dec_a": X, "y": Y}, {"s1/dec_b": Y, "s1/dec_a": X}):
            run = model.capture(feed, taps="doubled")
            assert list(run) == ["s1/dec_out"]
            np.testing.assert_array_equal(run["doubled"].raw, by_hand()["doubled"])
        run = model.capture({"x": X, "y": Y}, taps=["doubled", "s1/dec_half"])
        assert "doubled" in run.taps
        assert run.taps["doubled"].name == "s1/dec_out"
        with pytest.raises(FeedError, match="given twice"):
            model.capture({"x": X, "s1/dec_a": X, "y": Y})
        with pytest.raises(FeedError, match="no input 'z'"):
            model.capture({"x": X, "z": Y})


def test_a_name_that_means_two_tensors_is_nobodys(file: Path) -> None:
    with layertap.open(file, "litert", signature="dec") as model:
        # An input and an output of that signature.
        assert "x" not in model.graph
        assert model.graph["s1/dec_out"].also == ("doubled",)
        assert "y" in model.graph


@pytest.mark.slow
def test_names_of_the_first_subgraph_go_without_asking_for_a_signature(file: Path) -> None:
    for runtime in ("litert", "tflm"):
        with layertap.open(file, runtime) as model:
            run = model.capture({"y": Y, "x": X}, taps="code")
        np.testing.assert_array_equal(run["code"].raw, X - Y)


@pytest.mark.slow
def test_a_signature_behind_the_path(file: Path) -> None:
    with layertap.open(f"{file}#dec", "litert") as model:
        run = model.capture((X, Y), taps="doubled")
    np.testing.assert_array_equal(run["doubled"].raw, by_hand()["doubled"])
    assert run.provenance["signature"] == "dec"
    assert run.provenance["model"]["path"] == str(file)


def test_refusals_of_signatures(file: Path) -> None:
    with pytest.raises(SourceError, match="no signature 'no'") as caught:
        layertap.open(f"{file}#no", "litert")
    assert "'enc', 'dec'" in caught.value.hint
    with pytest.raises(SourceError, match="two signatures"):
        layertap.open(f"{file}#dec", "litert", signature="enc")
    with pytest.raises(SourceError, match="first subgraph") as caught:
        layertap.open(f"{file}#dec", "tflm")
    assert 'runtime="litert"' in caught.value.hint


def test_a_file_of_that_very_name_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "odd#dec.tflite"
    path.write_bytes(two_signatures())
    with layertap.open(path, "litert") as model:
        assert "code" in model.graph


@pytest.mark.slow
def test_names_are_there_again_after_loading_a_run(file: Path, tmp_path: Path) -> None:
    with layertap.open(f"{file}#dec", "litert") as model:
        model.capture((X, Y), to=tmp_path / "run")
    run = layertap.load(tmp_path / "run")
    np.testing.assert_array_equal(run["doubled"].raw, by_hand()["doubled"])


@pytest.mark.slow
def test_on_the_command_line(file: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["ls", f"{file}#dec", "--json"])
    assert shown.exit_code == 0, shown.output
    names = [tap["name"] for tap in json.loads(shown.output)["taps"] if not tap["untappable"]]
    assert "s1/dec_out" in names
    np.savez(tmp_path / "in.npz", x=X, y=Y)
    to = str(tmp_path / "run")
    inputs = ["--input", str(tmp_path / "in.npz"), "--to", to]
    done = CliRunner().invoke(main, ["capture", f"{file}#dec", *inputs, "--taps", "doubled"])
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(layertap.load(to)["doubled"].raw, by_hand()["doubled"])
