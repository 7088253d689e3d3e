"""layertap memory --optimize."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layertap.cli.memory import SHARINGS
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite

SIZE = 1024


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Three operators that may all work in place."""
    tensors = [TensorSpec(f"t{i}", (1, SIZE // 4)) for i in range(4)]
    names = ("RELU", "NEG", "LOGISTIC")
    operators = [OperatorSpec(name, [i], [i + 1]) for i, name in enumerate(names)]
    path = tmp_path / "chain.tflite"
    path.write_bytes(write_tflite(SubgraphSpec(tensors, [0], [3], operators)))
    return path


@pytest.mark.slow
def test_a_smaller_model_is_written_and_told(cli, cli_json, chain: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.tflite"
    told = cli("memory", chain, "--optimize", "-o", new).stdout
    document = cli_json("memory", chain, "--optimize", "-o", new)
    before, after = document["before"], document["after"]
    assert document["saved"] == before["minimum"] - after["minimum"] > 0
    assert told.startswith(f"arena  {after['minimum']:,} bytes instead of {before['minimum']:,}")
    assert document["optimal"]
    assert f"no layout needs less than {after['head']:,}, proven" in told
    assert [shared["op"] for shared in document["shared"]] == ["RELU", "NEG", "LOGISTIC"]
    assert "for 4 random inputs" in told
    assert "ceva" in told
    assert "Right for the reference kernels" in told
    assert told.endswith(f"written: {new}\n")
    assert document["written"] == str(new)
    assert cli_json("memory", new)["arena"]["head"] == after["head"]


def test_what_is_best_already_is_said(cli, cli_json, chain: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.tflite"
    told = cli("memory", chain, "--optimize", "--share", "none", "-o", new).stdout
    assert "no lower layout was found" in told
    assert new.read_bytes() == chain.read_bytes()
    document = cli_json("memory", chain, "--optimize", "--share", "none")
    assert (document["changed"], document["saved"], document["shared"]) == (False, 0, [])
    assert document["written"] is None


def test_the_model_itself_is_not_overwritten(cli, chain: Path) -> None:
    before = chain.read_bytes()
    result = cli("memory", chain, "--optimize", "--share", "none", "-o", chain)
    assert result.exit_code == 2
    assert chain.read_bytes() == before


def test_flags_that_do_not_go_together(cli, chain: Path) -> None:
    for arguments in (
        [chain, "-o", "new.tflite"],
        [chain, "--optimize", "--tensors"],
        [chain, chain, "--optimize"],
        [chain, "--optimize", "--share", "everything"],
        [chain, "--optimize", "--price"],
        [chain, "--optimize", "--arena", "96K", "-o", "new.tflite"],
        [chain, "--price", "--arena", "96K"],
    ):
        result = cli("memory", *arguments)
        assert result.exit_code == 2, arguments


def test_errors_are_documents_too(cli, chain: Path) -> None:
    result = cli("memory", chain, "--optimize", "-o", chain, "--share", "none", "--json")
    assert json.loads(result.stdout)["error"] == "StoreError"


def test_the_choices_are_those_of_the_interface() -> None:
    from typing import get_args

    from layertap.arena.memory_map import Sharing

    assert get_args(Sharing) == SHARINGS


def test_kernels_that_do_not_bear_the_layout(cli, cli_json, chain: Path, tmp_path: Path) -> None:
    shared, apart = tmp_path / "shared.tflite", tmp_path / "apart.tflite"
    cli("memory", chain, "--optimize", "-o", shared)
    assert cli_json("memory", shared)["layout"]["sharing"] == "in-place"
    for more in ([], ["--board", "sparkfun-edge"]):
        told = cli("memory", shared, *more).stdout
        assert "note: its layout lays the result of 3 operators over what they read" in told
        assert "not known to be with those of xtensa, ceva" in told
    for verb in (["memory"], ["memory", "--price"], ["memory", "--arena", "96K"]):
        refused = cli(*verb, shared, "--kernels", "ceva")
        assert refused.exit_code == 2
        assert "'t3' (LOGISTIC) over 't2'" in refused.stderr
    # The hint does what it says.
    for words in (["--share", "none"], ["--kernels", "ceva"]):
        told = cli("memory", shared, "--optimize", *words, "-o", apart)
        assert "the layout that it had shares what it may not" in told.stdout
        assert cli("memory", apart, "--kernels", "ceva").exit_code == 0
