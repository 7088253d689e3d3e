"""What holds for every verb: help, errors, exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from layertap.cli import VERBS
from layertap.cli.failure import report
from layertap.cli.options import batch_axes
from layertap.demo import asset
from layertap.errors import LayertapError

FRAMEWORKS = ["torch", "tensorflow", "keras", "jax", "ai_edge_litert", "tflite_micro"]


def test_help_needs_no_framework_nor_numpy(cli_without):
    done = cli_without([*FRAMEWORKS, "numpy", "zarr", "rich"], "--help")
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)
    loaded = done.stderr.split("LOADED")[1].split()
    assert not {"numpy", "rich", "zarr", *FRAMEWORKS} & set(loaded)


def test_without_a_verb_help_is_shown(cli):
    result = cli()
    assert result.exit_code == 0
    assert "capture" in result.stdout


@pytest.mark.parametrize("verb", list(VERBS))
def test_each_verb_has_help_and_json(cli, verb):
    result = cli(verb, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_an_error_is_one_line_what_and_one_line_how_to_mend(cli):
    result = cli("ls", "nowhere.tflite")
    assert result.exit_code == 2
    assert result.stdout == ""
    what, how = result.stderr.splitlines()
    assert what == "error: there is no file 'nowhere.tflite'"
    assert how == "hint: check the path"


def test_an_error_as_json(cli):
    result = cli("ls", "nowhere.tflite", "--json")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document["error"] == "SourceError"
    assert "nowhere.tflite" in document["message"]
    assert document["hint"]
    assert result.stderr == ""


def test_wrong_use_is_an_error_as_json_too(cli):
    result = cli("ls", "--json", "--nonsense")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"] == "UsageError"


def test_unknown_verb(cli):
    result = cli("lsss")
    assert result.exit_code == 2
    assert "lsss" in result.stderr


def test_debug_shows_the_traceback(cli):
    result = cli("ls", "nowhere.tflite", "--debug")
    assert type(result.exception).__name__ == "SourceError"


def test_options_of_python_become_options_of_the_command_line(cli, shared):
    model = shared / "models/tflm/person_detect.tflite"
    result = cli("capture", model, "--random", 0, "--runtime", "litert")
    assert result.exit_code == 2
    assert "--runtime tflm" in result.stderr


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("open it with allow_code=True", "open it with --allow-code"),
        ("give arena, as in arena='96K'", "give arena, as in --arena 96K"),
        ("more time with timeout=SECONDS", "more time with --timeout SECONDS"),
        ("give to='run.zarr', or samples=N", "give --to run.zarr, or --samples N"),
        ("slices= and reduce=; retries=N", "--slices and --reduce; --option retries=N"),
        ("leave out eager=True", "leave out --option eager=True"),
        ('sharing="none" gives it up', "--share none gives it up"),
        ("end it before, with until=", "end it before, with --until"),
        ("give one: model.trace(x)", "give one: --input FILE or --random SEED"),
        ("compile with run_eagerly=True", "compile with run_eagerly=True"),
    ],
)
def test_hints_are_in_the_words_of_the_command_line(hint, shown, capsys):
    report(LayertapError("no", hint=hint), [])
    assert capsys.readouterr().err == f"error: no\nhint: {shown}\n"


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(int8_model):
    command = f'"{sys.executable}" -m layertap ls "{int8_model}" --json'
    script = f"( sleep 1; {command} ) | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "141"
    assert done.stderr == ""


def test_a_missing_runtime_names_the_extra(cli_without, int8_model: Path):
    args = ("capture", int8_model, "--random", 0, "--runtime", "tflm", "--json")
    done = cli_without(["tflite_micro"], *args)
    assert done.returncode == 2, done.stderr
    document = json.loads(done.stdout)
    assert document["error"] == "MissingRuntime"
    assert "pip install 'layertap[tflm]'" in document["hint"]


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("lst", "did you mean 'ls'?"), ("captur", "did you mean 'capture'?"), ("xyz", "--help")],
)
def test_a_mistyped_verb(cli, typed, hint):
    result = cli(typed, "model.tflite")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == f"error: there is no command {typed!r}"
    assert hint in result.stderr.splitlines()[1]


def test_it_is_a_module_too():
    command = [sys.executable, "-m", "layertap", "ls", "nowhere.tflite"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no file 'nowhere.tflite'")


@pytest.mark.parametrize("no_color", ["1", ""])
def test_no_color(no_color):
    """On a terminal."""
    code = f"import pty; pty.spawn([{sys.executable!r}, '-m', 'layertap', 'ls', 'nowhere.tflite'])"
    env = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, timeout=60)
    assert b"error" in done.stdout
    assert (b"\x1b[" in done.stdout) == (not no_color)


def test_messages_and_hints_have_an_end(capsys):
    report(LayertapError("x" * 5000, hint="y " * 5000), [])
    what, how = capsys.readouterr().err.splitlines()
    assert max(len(what), len(how)) < 520


@pytest.mark.timeout(20)
@pytest.mark.parametrize("verb", [("ls",), ("memory",), ("capture", "--random", 0)])
def test_a_pipe_that_is_called_a_model(cli, tmp_path, verb):
    os.mkfifo(tmp_path / "x.tflite")
    result = cli(*verb, tmp_path / "x.tflite")
    assert result.exit_code == 2
    assert "is a pipe or a device" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("-i", "nowhere.npy"),
        ("--random", 0, "-t", "((("),
        ("--random", 0, "-o", "{}"),
        ("--random", 0, "--batch-axis", "x"),
        ("--random", 0, "--batch-axis", "x=first"),
        ("--random", 0, "--scale", "much"),
    ],
)
def test_what_is_wrong_anyhow_is_refused_before_a_framework_is_imported(
    cli_without, tmp_path, args
):
    (tmp_path / "thesis.txt").touch()
    done = cli_without(
        [], "capture", asset("digits.keras"), *(str(a).format(tmp_path) for a in args)
    )
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    assert not set(FRAMEWORKS) & set(lines[2].split())


@pytest.mark.parametrize("arguments", [{"x": 1}, {"x": -1, "kind:state": None}])
def test_batch_axes(arguments):
    texts = [f"{selector}={'none' if n is None else n}" for selector, n in arguments.items()]
    assert batch_axes(texts) == arguments
    assert batch_axes(["re:a=b=2"]) == {"re:a=b": 2}
