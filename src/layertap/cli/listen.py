"""``layertap listen``: record what a board sends on its own."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from layertap.cli import completion
from layertap.cli.board import showing_board
from layertap.cli.failure import Interrupted
from layertap.cli.invocation import program
from layertap.cli.options import board_choice, board_options, json_option, taps_option
from layertap.cli.table import counted
from layertap.errors import SourceError, StoreError

if TYPE_CHECKING:
    from rich.live import Live

    from layertap.core.captures import Run, Summary
    from layertap.core.dtypes import Array
    from layertap.core.graph import TapPoint
    from layertap.runtimes.device.listening import Listener


@click.command(short_help="record what a board sends on its own")
@click.argument("port", shell_complete=completion.ports)
@click.option(
    "-m",
    "--model",
    metavar="FILE.tflite",
    required=True,
    help="What the board runs.",
    shell_complete=completion.files,
)
@taps_option("Only these, selected as in capture.  [default: all that the board sends]")
@click.option("-o", "--to", "output", metavar="RUN.zarr", help="Write the captures there.")
@click.option("--samples", type=click.IntRange(1), metavar="N", help="Stop after so many.")
@click.option("--every", type=int, metavar="N", help="Have it send every Nth inference only.")
@board_options
@click.option("--compress", metavar="zstd[:LEVEL]", help="Compress on disk.")
@click.option("--resume", is_flag=True, help="Append to a run.")
@click.option("--overwrite", is_flag=True, help="Replace an existing run.")
@click.option("--wide", is_flag=True, help="Do not fit tables to the terminal.")
@json_option
@click.pass_context
def listen(ctx: click.Context, /, port: str, model: str, **options: Any) -> None:
    """Record what the board on PORT sends by itself, while it runs a .tflite model.

    PORT is a serial port, tcp://HOST:PORT (also the RTT server of a debug probe), exec:COMMAND, a
    FIFO, a file that was recorded before, or - for standard input. With -o whole inferences are
    written to disk, until Ctrl-C; without it a table shows the latest one.

    \b
    layertap listen /dev/ttyACM0 -m model.tflite
    layertap listen tcp://localhost:9090 -m model.tflite -t '*conv*' -o run.zarr --samples 100
    """
    _check(options)
    given = board_choice(options)
    given |= {"taps": options["taps"] or None, "every": options["every"]}
    if options["output"]:
        _record(port, model, given, options, ctx.obj)
    else:
        _watch(port, model, given, options)


def _check(options: Mapping[str, Any]) -> None:
    """Raise SourceError for options that mean nothing together."""
    if options["output"]:
        return
    if options["as_json"] and not options["samples"]:
        raise SourceError(
            "a document has an end, and listening has none", hint="--samples N, or -o RUN.zarr"
        )
    for name in ("resume", "overwrite", "compress"):
        if options[name]:
            raise SourceError(f"--{name} is for a run on disk", hint="-o RUN.zarr writes one")


def _record(
    port: str,
    model: str,
    given: dict[str, Any],
    options: Mapping[str, Any],
    args: Sequence[str],
) -> None:
    import layertap
    from layertap.cli.progress import ProgressBar

    output = options["output"]
    start = time.monotonic()
    try:
        with showing_board(), ProgressBar() as bar:
            run = layertap.listen(
                port,
                model,
                to=output,
                samples=options["samples"],
                compression=options["compress"],
                resume=options["resume"],
                overwrite=options["overwrite"],
                progress=bar,
                **given,
            )
    except KeyboardInterrupt:
        raise _interrupted(output, args) from None
    _print_run(run, time.monotonic() - start, options)


def _print_run(run: Run, seconds: float, options: Mapping[str, Any]) -> None:
    from layertap.cli.taps import capture_json

    observed = run.provenance["observed"]
    if options["as_json"]:
        document = {
            "run": str(run.path),
            "samples": run.samples,
            "complete": run.complete,
            "seconds": round(seconds, 3),
            "provenance": run.provenance,
            "taps": [capture_json(capture, None) for capture in run.values()],
        }
        print(json.dumps(document))
        return
    print(f"{counted(run.samples, 'sample')} of {counted(len(run), 'tap')} in {options['output']}")
    for line in losses(observed):
        print(line)
    print(f"look at it: {program()} show {shlex.quote(options['output'])}")


def _interrupted(output: str, args: Sequence[str]) -> Interrupted:
    """What was committed, what was lost, and the command that goes on."""
    import layertap

    try:
        run = layertap.load(output)
    except StoreError:
        return Interrupted("before an inference came whole", hint="nothing was written")
    lost = losses(run.provenance["observed"])
    again = [arg for arg in args if arg not in ("--overwrite", "--resume")]
    return Interrupted(
        "; ".join([f"{counted(run.samples, 'sample')} in {output}, which is valid", *lost]),
        hint=f"append to it: {program()} {shlex.join([*again, '--resume'])}",
    )


def losses(observed: Mapping[str, int]) -> list[str]:
    """What did not make it, one fact a line; nothing where all is well."""
    lines = []
    if observed["dropped"]:
        why = [f"{observed[name]} frames {name}" for name in ("lost", "damaged") if observed[name]]
        because = f" ({', '.join(why)})" if why else ""
        lines.append(f"{counted(observed['dropped'], 'inference')} dropped, not whole{because}")
    if observed["early"]:
        lines.append(f"{counted(observed['early'], 'inference')} came before the recording began")
    if observed["failed"]:
        lines.append(f"{counted(observed['failed'], 'inference')} failed on the board")
    if observed["starts"] > 1:
        lines.append(f"the board started {observed['starts']} times")
    return lines


def _watch(port: str, model: str, given: dict[str, Any], options: Mapping[str, Any]) -> None:
    """Show each inference as it comes, nothing is kept."""
    from layertap.listening import listening

    view = _Watch(options)
    counts: dict[str, int] = {}
    try:
        with view, listening(port, model, **given) as listener:
            try:
                view.follow(listener)
            finally:
                counts = listener.counters()
    except KeyboardInterrupt:
        raise Interrupted(
            "; ".join([counted(view.seen, "inference"), *(losses(counts) if counts else [])]),
            hint="-o RUN.zarr writes what comes to disk",
        ) from None
    view.finish(port, counts)


class _Watch:
    """The latest inference as a table: in place on a terminal, elsewhere one after the other."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.seen = 0
        self._wide, self._as_json = options["wide"], options["as_json"]
        self._samples = options["samples"]
        self._stack = ExitStack()
        self._live: Live | None = None
        self._summaries: dict[str, tuple[TapPoint, Summary]] = {}
        self._rows = 0

    def __enter__(self) -> None:
        if self._as_json or not sys.stdout.isatty():
            self._stack.enter_context(showing_board())
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(highlight=False, soft_wrap=True)
        self._live = self._stack.enter_context(Live(console=console, auto_refresh=False))
        self._stack.enter_context(showing_board(lambda line: console.print(line, markup=False)))

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def follow(self, listener: Listener) -> None:
        rows = listener.device.batch or 1
        for heard in listener:
            self.seen += 1
            self._rows += rows
            self._show(heard.number, listener.taps, heard.values)
            if self._samples and self._rows >= self._samples:
                return

    def _show(self, number: int, taps: Sequence[TapPoint], values: Mapping[str, Array]) -> None:
        from layertap.cli.taps import heard_table
        from layertap.core.captures import Summary

        if self._as_json:
            for tap in taps:
                if tap.name in values:
                    summary = self._summaries.setdefault(tap.name, (tap, Summary()))[1]
                    summary.add(_real(tap, values[tap.name]))
            return
        real = {tap.name: _real(tap, values[tap.name]) for tap in taps if tap.name in values}
        table = heard_table(taps, real)
        if self._live is None:
            print(f"inference {number}")
            table.show(wide=self._wide)
            sys.stdout.flush()
            return
        from rich.text import Text

        width = None if self._wide else self._live.console.width
        lines = [f"inference {number}", *table.lines(width)]
        self._live.update(Text("\n".join(lines)), refresh=True)

    def finish(self, port: str, counts: Mapping[str, int]) -> None:
        from layertap.cli.taps import heard_json

        if self._as_json:
            taps = [heard_json(tap, summary) for tap, summary in self._summaries.values()]
            document = {"port": port, "samples": self._rows, "link": counts, "taps": taps}
            print(json.dumps(document))
            return
        print("; ".join([counted(self.seen, "inference"), *losses(counts)]))


def _real(tap: TapPoint, value: Array) -> Array:
    """The real numbers of a raw value."""
    return value if tap.quantization is None else tap.quantization.dequantize(value)


__all__ = ["listen", "losses"]
