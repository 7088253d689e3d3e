"""``layertap demo``: every layer of a small CNN that comes with layertap."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layertap.cli.invocation import program
from layertap.cli.options import json_option
from layertap.errors import LayertapError, MissingRuntime

if TYPE_CHECKING:
    from layertap.core.captures import Run
    from layertap.core.dtypes import Array
    from layertap.demo import Digits

OUTPUT = "probabilities"


@dataclass(frozen=True, slots=True)
class Take:
    """One run of the demo: kept under ``name``; with ``brief`` its table is not printed."""

    name: str
    title: str
    model: str
    runtime: str
    options: Mapping[str, Any] = field(default_factory=dict)
    brief: bool = False


MICRO = Take(
    "digits_int8-tflm",
    "The int8 model in TensorFlow Lite Micro",
    "digits_int8.tflite",
    "tflm",
)
FAST = Take("digits_int8-litert", "The int8 model in LiteRT", "digits_int8.tflite", "litert")
REFERENCE = Take(
    "digits_int8-litert-reference",
    "The int8 model in LiteRT with its reference kernels",
    "digits_int8.tflite",
    "litert",
    {"kernels": "reference"},
    brief=True,
)
FLOAT = Take("digits_float-litert", "The float model in LiteRT", "digits_float.tflite", "litert")


@click.command(short_help="capture every layer of a small CNN")
@click.argument("folder", default="layertap-demo")
@click.option("--wide", is_flag=True, help="Do not fit tables to the terminal.")
@json_option
def demo(folder: str, wide: bool, as_json: bool) -> None:
    """Capture every layer of a small CNN on handwritten digits, in LiteRT and in TensorFlow Lite
    Micro, and leave the runs in FOLDER.

    The model, trained on scikit-learn's digits, comes with layertap; nothing is downloaded.
    """
    from layertap.demo import digits

    teller = _Teller(Path(folder), digits(), wide, quiet=as_json)
    teller.introduce()
    for take in (FLOAT, FAST, REFERENCE, MICRO):
        teller.run(take)
    if not teller.runs:
        raise LayertapError(
            "neither LiteRT nor TensorFlow Lite Micro is installed",
            hint="pip install 'layertap[litert,tflm]'",
        )
    differing = teller.compare()
    if as_json:
        print(json.dumps(teller.document(differing)))
    else:
        teller.farewell()


class _Teller:
    """Runs the models and tells about it."""

    def __init__(self, folder: Path, digits: Digits, wide: bool, *, quiet: bool) -> None:
        self.folder, self.digits, self.wide, self.quiet = folder, digits, wide, quiet
        self.runs: dict[str, Run] = {}
        self.missing: dict[str, str] = {}

    def say(self, text: str = "", **style: Any) -> None:
        if not self.quiet:
            click.echo(click.style(text, **style) if style else text)

    def introduce(self) -> None:
        import layertap
        from layertap.cli.taps import tap_table
        from layertap.demo import asset

        count = len(self.digits.label)
        self.say(f"A small CNN, and {count} handwritten digits that it has not seen in training.")
        self.say()
        self.say(f"What can be read of {MICRO.model}, weights left out:", bold=True)
        if not self.quiet:
            with layertap.open(asset(MICRO.model)) as model:
                taps = [tap for tap in model.graph if tap.kind != "weight"]
            tap_table(taps).show(wide=self.wide)

    def run(self, take: Take) -> None:
        """Capture every layer, onto disk, or say what to install."""
        import layertap
        from layertap.cli.taps import summary_table
        from layertap.demo import asset

        if take.runtime in self.missing:
            return
        path = self.folder / f"{take.name}.zarr"
        try:
            with layertap.open(asset(take.model), take.runtime, **take.options) as opened:
                run = opened.capture(self.digits.image, to=path, overwrite=True)
        except MissingRuntime as error:
            self.missing[take.runtime] = error.hint
            self.say()
            self.say(f"{take.title}: left out, {error.message}", fg="yellow")
            self.say(f"  {error.hint}")
            return
        self.runs[take.name] = run
        if take.brief or self.quiet:
            return
        self.say()
        self.say(f"{take.title}, each layer on all digits:", bold=True)
        summary_table({name: run[name] for name in run})[0].show(wide=self.wide)
        self.say(f"{self.right(run)} of {run.samples} digits told right; kept in {path}")

    def right(self, run: Run) -> int:
        """How many digits the model tells right."""
        guesses = run[OUTPUT].values.argmax(axis=1)
        return int((guesses == self.digits.label).sum())

    def compare(self) -> dict[str, dict[str, float]]:
        """The share of int8 values, by take and tap, that differ from TensorFlow Lite Micro's."""
        from layertap.cli.table import Column, Table

        if not {take.name for take in (MICRO, FAST, REFERENCE)} <= set(self.runs):
            return {}
        micro = self.runs[MICRO.name]
        shares = {
            name: {tap: _differing(micro[tap].raw, self.runs[name][tap].raw) for tap in micro}
            for name in (FAST.name, REFERENCE.name)
        }
        self.say()
        self.say("Share of int8 values that differ from TensorFlow Lite Micro's:", bold=True)
        columns = [Column("name"), Column("LiteRT", right=True)]
        columns.append(Column("LiteRT, reference kernels", right=True))
        told = [(n, *(_share(shares[t.name][n]) for t in (FAST, REFERENCE))) for n in micro]
        if not self.quiet:
            Table(columns, list(told)).show(wide=self.wide)
        return shares

    def farewell(self) -> None:
        path = str(next(reversed(self.runs.values())).path)
        self.say()
        self.say("Look at a run:", bold=True)
        self.say(f"  {program()} show {shlex.quote(path)}")
        self.say(f"  {program()} show {shlex.quote(path)} -t logits --sample 0")
        self.say("and in Python:", bold=True)
        self.say(f"  import layertap; run = layertap.load({path!r})")
        self.say('  run["logits"].values, run["logits"].raw  # real numbers, and the stored int8')

    def document(self, differing: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """All of it as JSON."""
        from layertap.cli.taps import capture_json, summary_table

        runs = []
        for name, run in self.runs.items():
            captures = {tap: run[tap] for tap in run}
            summaries = summary_table(captures)[1]
            taps = [capture_json(captures[tap], summaries[tap]) for tap in captures]
            told = {"run": str(run.path), "samples": run.samples, "right": self.right(run)}
            runs.append({"name": name, **told, "taps": taps})
        return {"runs": runs, "missing": self.missing, "differ_from_tflm": differing}


def _differing(a: Array, b: Array) -> float:
    return float((a != b).mean())


def _share(share: float) -> str:
    return f"{share:.2%}" if share else "none"


__all__ = ["demo"]
