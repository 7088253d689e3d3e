"""The command line: one module per verb, imported when the verb is used.

Exit status: 0 fine, 1 does not fit (``memory --board``), 2 failure, 130 interrupted by Ctrl-C,
141 the reader of a pipe went away.
With ``--json`` standard output holds one JSON document and nothing else, errors included.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

import layertap
from layertap.cli.failure import Interrupted, report
from layertap.errors import LayertapError

VERBS = {
    "ls": "list what can be read of a model",
    "capture": "run a model and read layers, to look at or onto disk",
    "export": "write a model whose outputs are layers of another",
    "show": "what a run on disk holds: provenance, taps, summaries, values",
    "memory": "where every byte of a .tflite model lives, and whether it fits a board",
    "firmware": "the source of a firmware that runs a .tflite model and sends its tensors",
    "listen": "record what a board sends on its own",
    "doctor": "what is installed, what is missing, and whether it works",
    "demo": "capture every layer of a small CNN that comes with layertap",
}
"""The verbs and what they do; each has a module of its name with a command of its name."""

FAILURE, INTERRUPTED, CLOSED_PIPE = 2, 130, 141


class _ReaderGone(Exception):
    """A broken pipe; click would end with status 1, which means that a comparison differs."""


class Verbs(click.Group):
    """Imports a verb's module when it is used, and turns errors into lines and exit statuses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = getattr(import_module(f"layertap.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in VERBS and not name.startswith("-") and not ctx.resilient_parsing:
            raise _unknown(name, ctx)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        given = list(sys.argv[1:] if args is None else args)
        # TensorFlow tells about processors and GPUs on standard error unless this is set first.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if "--debug" in given else "3")
        extra.setdefault("obj", given)
        if os.environ.get("NO_COLOR"):  # https://no-color.org
            extra.setdefault("color", False)
        debug = "--debug" in given
        verb_args = [arg for arg in given if arg != "--debug"]
        sys.exit(self._status(verb_args, prog_name or "layertap", extra, debug))

    def _status(
        self, args: list[str], name: str, extra: MutableMapping[str, Any], debug: bool
    ) -> int:
        color: bool | None = extra.get("color")
        try:
            status = super().main(list(args), name, standalone_mode=False, **extra)
            sys.stdout.flush()
        except (BrokenPipeError, _ReaderGone):
            _forget_stdout()
            return CLOSED_PIPE
        except (click.exceptions.Abort, KeyboardInterrupt):
            report(Interrupted("interrupted"), args, color)
            return INTERRUPTED
        except Interrupted as error:
            report(error, args, color)
            return INTERRUPTED
        except Exception as error:
            if debug:
                raise
            report(error, args, color)
            return FAILURE
        return status if isinstance(status, int) else 0

    def invoke(self, ctx: click.Context) -> Any:
        from layertap.cli.warned import showing_warnings

        try:
            with showing_warnings():
                return super().invoke(ctx)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise _ReaderGone from error
            where = f"{error.filename}: " if error.filename else ""
            message = f"{where}{error.strerror or error}"
            raise LayertapError(message, hint="check the path and its permissions") from error


def _unknown(name: str, ctx: click.Context) -> LayertapError:
    from difflib import get_close_matches

    near = get_close_matches(name, VERBS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"see {ctx.command_path} --help"
    return LayertapError(f"there is no command {name!r}", hint=hint)


def _forget_stdout() -> None:
    """Keep the interpreter from complaining, at its end, about what it cannot write."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.__stdout__.fileno() if sys.__stdout__ else 1)


@click.command(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 fine, 1 does not fit the board, 2 failure, 130 interrupted by Ctrl-C.",
)
@click.version_option(layertap.__version__, prog_name="layertap")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks (any verb).")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Read any intermediate value of any model, wherever the model runs."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


__all__ = ["VERBS", "main"]
