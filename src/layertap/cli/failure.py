"""Errors as people and programs read them: one line what, one line how to mend."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import click

from layertap.core.messages import abridged
from layertap.errors import LayertapError

_OWN = (
    "runtime",
    "kernels",
    "taps",
    "arena",
    "target",
    "allow_code",
    "batch_size",
    "budget",
    "until",
    "port",
    "baud",
    "timeout",
    "slices",
    "reduce",
    "samples",
    "every",
    "resume",
    "to",
    "depth",
    "verify",
    "batch_axis",
)
_FURTHER = ("eager", "fast_path", "signature", "retries", "keep_state")
_OPTIONS = (
    {name: f"--{name.replace('_', '-')} " for name in _OWN}
    | {name: f"--option {name}=" for name in _FURTHER}
    | {"sharing": "--share "}
)
"""Arguments of the Python interface in hints, and how they are written here."""

_ARGUMENT = re.compile(rf"\b({'|'.join(_OPTIONS)})=('[^']*'|\"[^\"]*\"|[\w.]*)")
_EXAMPLE = ("model.trace(x)", "--input FILE or --random SEED")


LONGEST = 500
"""Characters of a message or a hint: what a file or a framework says may have any length."""


class Interrupted(LayertapError):
    """Ctrl-C; the hint says how to go on."""


def report(error: BaseException, args: Sequence[str], color: bool | None = None) -> None:
    """Print ``error`` to standard error, or as JSON to standard output where ``args`` say so.
    ``color`` False is without, None where there is a terminal."""
    kind, message, hint = _describe(error)
    if "--json" in args:
        click.echo(json.dumps({"error": kind, "message": message, "hint": hint}))
        return
    label = "interrupted" if isinstance(error, Interrupted) else "error"
    text = "" if message == label else f": {message}"
    click.echo(click.style(label, fg="red", bold=True) + text, err=True, color=color)
    if hint:
        told = click.style("hint", fg="green", bold=True) + f": {hint}"
        click.echo(told, err=True, color=color)


def _describe(error: BaseException) -> tuple[str, str, str]:
    """The error's type, what happened, and how to mend it, one line each."""
    if isinstance(error, LayertapError):
        hint = _ARGUMENT.sub(_as_option, _one_line(error.hint)).replace(*_EXAMPLE)
        return type(error).__name__, _one_line(error.message), hint
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx is not None else "layertap"
        return "UsageError", _one_line(error.format_message()), f"see {where} --help"
    if isinstance(error, click.ClickException):
        return type(error).__name__, _one_line(error.format_message()), ""
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "layertap did not expect this; --debug before the command shows where it happened"
    return "Unexpected", _one_line(message), hint


def _as_option(argument: re.Match[str]) -> str:
    option, value = _OPTIONS[argument[1]], argument[2].strip("\"'")
    is_flag = value == "True" and option.endswith(" ")
    return option.rstrip() if is_flag else f"{option}{value}".rstrip()


def _one_line(text: Any) -> str:
    return abridged(" ".join(str(text).split()), LONGEST)


__all__ = ["Interrupted", "report"]
