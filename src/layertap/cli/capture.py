"""``layertap capture``: run a model and read layers."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layertap.cli.board import showing_board
from layertap.cli.failure import Interrupted
from layertap.cli.invocation import program
from layertap.cli.options import (
    batch_axes,
    batch_axis_option,
    given_inputs,
    input_options,
    json_option,
    runtime_choice,
    runtime_options,
    source_argument,
    taps_option,
)
from layertap.cli.table import counted
from layertap.core.units import format_bytes
from layertap.errors import BudgetExceeded, LayertapError, StoreError

if TYPE_CHECKING:
    from layertap.api import Model
    from layertap.cli.inputs import Given, Inputs, UserBatches
    from layertap.core.captures import Run
    from layertap.core.plan import Plan

IN_MEMORY = "2GB"
"""The budget of a capture that is not written to disk, unless the user gives one."""


@click.command(short_help="run a model and read layers")
@source_argument
@taps_option("What to read: a name, a glob, op:CONV_2D, #17, with | & ~.  [default: all computed]")
@input_options
@click.option("-o", "--to", "output", metavar="RUN.zarr", help="Write the captures there.")
@click.option("--keep-inputs", is_flag=True, help="Keep the inputs with the captures.")
@click.option("--compress", metavar="zstd[:LEVEL]", help="Compress on disk.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--overwrite", is_flag=True, help="Replace an existing run.")
@click.option("--budget", metavar="BYTES", help="Refuse to read more, as in 2GB.")
@batch_axis_option
@click.option("--verify", is_flag=True, help="Run each batch twice, and compare all bits.")
@click.option("--plan", "only_plan", is_flag=True, help="Print what would be read, and stop.")
@runtime_options
@click.option("-v", "--verbose", is_flag=True, help="Show what a board prints.")
@click.option("--progress/--no-progress", default=None, help="Progress bar, terminal or not.")
@click.option("--wide", is_flag=True, help="Do not fit tables to the terminal.")
@json_option
@click.pass_context
def capture(ctx: click.Context, /, source: str, only_plan: bool, **options: Any) -> None:
    """Run SOURCE (a model file, or MODULE:NAME for a live model) and read layers of it.

    With -o the captures are written to disk and Ctrl-C leaves a run that --resume completes;
    without it a summary of each layer is printed and nothing is kept.

    \b
    layertap capture model.tflite -t '*conv*' -i images/ --scale 1/255 -o run.zarr
    layertap capture net.keras -t 'op:Conv2D & ~stem*' --random 0
    """
    from layertap.cli.inputs import read_inputs
    from layertap.cli.source import open_model

    runtime, arguments = runtime_choice(options)
    given = given_inputs(options)
    _check(given, options)
    if options["verbose"]:
        ctx.with_resource(showing_board())
    with open_model(source, runtime, arguments) as model:
        inputs = read_inputs(given, model.session)
        for note in getattr(inputs, "notes", ()):
            click.echo(f"note: {note}", err=True)
        if only_plan:
            taps = _with_inputs(model, options)
            axes = batch_axes(options["axes"])
            plan = model.plan(taps, inputs, batch_axis=axes, budget=options["budget"])
            _print_plan(plan, options)
            return
        start = time.monotonic()
        run = _capture(model, inputs, options, ctx.obj)
    _print_run(run, time.monotonic() - start, options)


def _check(given: Given, options: dict[str, Any]) -> None:
    """Refuse what can be refused before a framework is imported, which takes seconds."""
    from layertap.cli.inputs import check_files
    from layertap.core.select import compile_selector

    compile_selector(options["taps"])
    check_files(given)
    if options["output"]:
        from layertap.store.place import check_place

        place = Path(options["output"])
        check_place(place, resume=options["resume"], overwrite=options["overwrite"])


def _with_inputs(model: Model, options: dict[str, Any]) -> list[str] | None:
    """The selection, and the model's inputs where they are to be kept."""
    taps = list(options["taps"])
    if options["keep_inputs"]:
        return [*(taps or ["*"]), *(tap.name for tap in model.graph.inputs)]
    return taps or None


def _capture(
    model: Model, inputs: Inputs | UserBatches, options: dict[str, Any], args: Sequence[str]
) -> Run:
    from layertap.cli.progress import ProgressBar

    output = options["output"]
    budget = options["budget"] or (None if output else IN_MEMORY)
    try:
        with ProgressBar(force=options["progress"]) as bar:
            return model.capture(
                inputs,
                options["taps"] or None,
                to=output,
                batch_size=options["batch_size"],
                batch_axis=batch_axes(options["axes"]),
                verify=options["verify"],
                keep_inputs=options["keep_inputs"],
                budget=budget,
                compression=options["compress"],
                resume=options["resume"],
                overwrite=options["overwrite"],
                progress=bar,
            )
    except KeyboardInterrupt:
        raise _interrupted(output, args) from None
    except BudgetExceeded as error:
        if output or options["budget"]:
            raise
        raise LayertapError(
            f"{error.message}, which is what fits in memory",
            hint="-o RUN.zarr writes to disk; --budget raises it",
        ) from error


def _interrupted(output: str | None, args: Sequence[str]) -> Interrupted:
    """How much was committed, and the command that goes on."""
    import layertap

    if output is None:
        return Interrupted("nothing is kept", hint="-o RUN.zarr writes a run that can be resumed")
    try:
        samples = layertap.load(output).samples
    except StoreError:
        return Interrupted(f"before the first batch was written to {output}")
    again = [arg for arg in args if arg not in ("--overwrite", "--resume")]
    return Interrupted(
        f"{counted(samples, 'sample')} in {output}, which is valid",
        hint=f"go on with: {program()} {shlex.join([*again, '--resume'])}",
    )


def _print_plan(plan: Plan, options: dict[str, Any]) -> None:
    from layertap.cli.taps import tap_json, tap_table

    if options["as_json"]:
        document = {
            "taps": [tap_json(tap) for tap in plan.taps],
            "passes": len(plan.passes),
            "samples": plan.samples,
            "sample_bytes": plan.sample_bytes,
            "total_bytes": plan.total_bytes,
        }
        print(json.dumps(document))
        return
    tap_table(plan.taps).show(wide=options["wide"])
    sample, total = plan.sample_bytes, plan.total_bytes
    size = "of unknown size" if sample is None else f"{sample:,} bytes a sample"
    passes = "1 pass" if len(plan.passes) == 1 else f"{len(plan.passes)} passes"
    print(f"{counted(len(plan.taps), 'tap')} in {passes}")
    samples = counted(plan.samples or 0, "sample")
    print(size if total is None else f"{size}, {total:,} bytes in all for {samples}")


def _print_run(run: Run, seconds: float, options: dict[str, Any]) -> None:
    from layertap.cli.taps import capture_json, summary_table

    captures = {name: run[name] for name in run}
    if options["as_json"]:
        summaries = {} if run.path else summary_table(captures)[1]
        taps = [capture_json(capture, summaries.get(name)) for name, capture in captures.items()]
        document = {
            "run": None if run.path is None else str(run.path),
            "samples": run.samples,
            "complete": run.complete,
            "seconds": round(seconds, 3),
            "provenance": run.provenance,
            "taps": taps,
        }
        print(json.dumps(document))
        return
    if run.path is None:
        summary_table(captures)[0].show(wide=options["wide"])
        print(f"{counted(len(run), 'tap')}, {counted(run.samples, 'sample')}, {seconds:.2f} s")
        return
    print(f"{counted(run.samples, 'sample')} of {counted(len(run), 'tap')} in {options['output']}")
    size = sum(path.stat().st_size for path in Path(run.path).rglob("*") if path.is_file())
    print(f"{format_bytes(size)} on disk, {seconds:.2f} s")
    print(f"look at it: {program()} show {shlex.quote(options['output'])}")


__all__ = ["capture"]
