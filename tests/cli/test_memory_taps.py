"""layertap memory --price, --taps and --arena."""

from __future__ import annotations

import layertap


def test_what_each_tap_costs(cli, cli_json, int8_model) -> None:
    document = cli_json("memory", int8_model, "--price")
    rows = {row["name"]: row for row in document["prices"]}
    assert rows["pool"]["bytes"] == 256
    assert rows["pool"]["tail"] > 0
    assert document["arena"]["without"] == layertap.memory(int8_model).arena.minimum
    together = layertap.memory(int8_model, taps="*").arena.minimum
    assert document["arena"]["together"] == together
    lines = cli("memory", int8_model, "--price").stdout.splitlines()
    assert lines[0].startswith(f"arena  {document['arena']['without']:,} bytes without taps")
    assert f"taps   {len(rows)}" in lines[1]
    assert any(line.split()[1:3] == ["pool", rows["pool"]["op"]] for line in lines)


def test_the_price_of_some_taps(cli_json, int8_model) -> None:
    document = cli_json("memory", int8_model, "--price", "--taps", "pool", "--target", "cortex-m")
    assert [row["name"] for row in document["prices"]] == ["pool"]
    assert document["target"] == "cortex-m"


def test_passes_that_fit(cli, cli_json, int8_model) -> None:
    costs = cli_json("memory", int8_model, "--price")
    arena = costs["arena"]["without"] + max(row["minimum"] for row in costs["prices"])
    document = cli_json("memory", int8_model, "--taps", "*", "--arena", arena)
    names = [name for each in document["passes"] for name in each["taps"]]
    assert sorted(names) == sorted(row["name"] for row in costs["prices"])
    assert all(each["arena"] <= arena for each in document["passes"])
    assert document["fewest"] == (document["at_least"] == len(document["passes"]))
    for each in document["passes"]:
        assert layertap.memory(int8_model, taps=each["taps"]).arena.minimum == each["arena"]
    lines = cli("memory", int8_model, "--arena", arena).stdout.splitlines()
    assert lines[0].startswith(f"passes {len(document['passes'])} for {len(names)} taps")
    one = cli_json("memory", int8_model, "--arena", "1M")
    assert len(one["passes"]) == 1


def test_an_arena_that_is_too_small(cli, int8_model) -> None:
    needed = layertap.memory(int8_model).arena.minimum
    result = cli("memory", int8_model, "--arena", needed - 16)
    assert result.exit_code == 2
    assert f"needs an arena of {needed:,} bytes, 16 more" in result.stderr
    assert "hint: give more" in result.stderr
    assert "98304, 96K or 96KiB" in cli("memory", int8_model, "--arena", "lots").stderr


def test_the_arena_with_taps(cli, cli_json, int8_model) -> None:
    document = cli_json("memory", int8_model, "--taps", "pool")
    assert document["arena"]["minimum"] == layertap.memory(int8_model, taps="pool").arena.minimum
    for flag in ("--price", "--arena=1M"):
        result = cli("memory", int8_model, flag, "--svg", "x.svg")
        assert "--svg does not go with" in result.stderr
    result = cli("memory", int8_model, int8_model, "--taps", "pool")
    assert "--taps is about one model" in result.stderr


def test_capture_in_passes_planned_for_a_chip(cli_json, cli, int8_model, tmp_path) -> None:
    together = layertap.memory(int8_model, "cortex-m", taps="*").arena.minimum
    arguments = ["--random", 0, "--runtime", "tflm", "--taps", "*", "--target", "cortex-m"]
    path = tmp_path / "run.zarr"
    arguments += ["--arena", together - 16, "-o", path]
    assert cli("capture", int8_model, *arguments).exit_code == 0
    facts = layertap.load(path).provenance
    assert facts["planned_for"] == {"target": "cortex-m", "arena": together - 16}
    result = cli("capture", int8_model, "--random", 0, "--runtime", "tflm", "--target", "ilp32")
    assert "--arena" in result.stderr
