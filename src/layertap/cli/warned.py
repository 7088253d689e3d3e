"""Warnings that layertap logs, shown to the user."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from layertap.cli.table import printable

_ROOT = "layertap"


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        # A board's lines are shown by who listens to it, where anybody does.
        if record.name != _ROOT and logging.getLogger(record.name).handlers:
            return
        label = click.style("warning", fg="yellow", bold=True)
        click.echo(f"{label}: {printable(record.getMessage())}", err=True)


@contextmanager
def showing_warnings() -> Iterator[None]:
    """Print each warning as a line on standard error, and nowhere else."""
    log, handler = logging.getLogger(_ROOT), _Lines()
    passed_on = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.propagate = passed_on
        log.removeHandler(handler)


__all__ = ["showing_warnings"]
