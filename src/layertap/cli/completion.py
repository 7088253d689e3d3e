"""What a shell offers after TAB: files, tap points, runtimes, boards, serial ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Offer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[Any]]"]


def files(
    _ctx: click.Context, _parameter: click.Parameter, typed: str
) -> list[CompletionItem[Any]]:
    """The files and folders that the shell itself finds."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(typed, type="file")]


def _names(find: Callable[[click.Context], Iterable[str]]) -> Offer:
    """Names that begin with what was typed; none where they cannot be found out, since TAB is no
    place for an error."""

    @wraps(find)
    def offer(
        ctx: click.Context, _parameter: click.Parameter, typed: str
    ) -> list[CompletionItem[Any]]:
        from click.shell_completion import CompletionItem

        try:
            return [CompletionItem(name) for name in find(ctx) if name.startswith(typed)]
        except Exception:
            return []

    return offer


@_names
def taps(ctx: click.Context) -> Iterable[str]:
    """The tap points of the ``.tflite`` file or the run on disk that is named before. Other models
    take seconds to open, and some run code."""
    import layertap

    models = ("source", "model", "run")
    given = (ctx.params[name] for name in models if ctx.params.get(name))
    # Where an option lacks its value, as the one that is being typed does, click gives up.
    named = next(given, "") or next(iter(ctx.args), "")
    if Path(named).is_dir():
        return layertap.load(named)
    if Path(named).suffix.lower() != ".tflite":
        return ()
    with layertap.open(named) as model:
        return [tap.name for tap in model.graph]


@_names
def runtimes(_ctx: click.Context) -> Iterable[str]:
    """Those of layertap and of other packages."""
    from layertap.runtimes.registry import runtimes

    return [runtime.name for runtime in runtimes()]


@_names
def boards(_ctx: click.Context) -> Iterable[str]:
    """The boards that are known."""
    from layertap.arena.boards import board_names

    return board_names()


@_names
def ports(_ctx: click.Context) -> Iterable[str]:
    """The serial ports of this machine."""
    from serial.tools.list_ports import comports

    return [port.device for port in comports()]


__all__ = ["boards", "files", "ports", "runtimes", "taps"]
