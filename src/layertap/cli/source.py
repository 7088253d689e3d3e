"""What a user names as a model or as inputs: a path, or ``module:attribute``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layertap.cli.quiet import without_native_logs
from layertap.core.messages import listed
from layertap.errors import FeedError, LayertapError, SourceError

if TYPE_CHECKING:
    from layertap.api import Model


def is_reference(text: str) -> bool:
    """Whether ``text`` is ``module:attribute`` rather than a path."""
    module, colon, attribute = text.rpartition(":")
    names = [*module.split("."), *attribute.split(".")]
    return bool(colon) and not Path(text).exists() and all(map(str.isidentifier, names))


def resolve_model(text: str) -> Any:
    """The path, or the live model that ``module:attribute`` names.

    The attribute is a model, or a function without arguments that returns one. Raises SourceError.
    """
    if not is_reference(text):
        return text
    value = _imported(text, SourceError)
    if _is_model(value) or not callable(value):
        return value
    return _call(value, text, SourceError)


def open_model(text: str, runtime: str | None, options: Mapping[str, Any]) -> Model:
    """The model that ``text`` names, opened. Raises what :func:`layertap.open` raises."""
    import layertap

    with without_native_logs():
        return layertap.open(resolve_model(text), runtime, **options)


def resolve_batches(text: str) -> Any:
    """What ``module:attribute`` yields as input; a function is called. Raises FeedError."""
    value = _imported(text, FeedError)
    return _call(value, text, FeedError) if callable(value) else value


def _imported(text: str, kind: type[LayertapError]) -> Any:
    """The attribute; the user's folder comes first, as with ``python -m``."""
    module, _, attribute = text.rpartition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        value: Any = importlib.import_module(module)
    except Exception as error:
        raise kind(
            f"cannot import {module!r}: {type(error).__name__}: {error}",
            hint="MODULE:NAME is looked up in this folder and among the installed packages",
        ) from error
    for name in attribute.split("."):
        if not hasattr(value, name):
            known = [n for n in getattr(value, "__dict__", ()) if not n.startswith("_")]
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {listed(known) or 'no names'}"
            raise kind(f"{module!r} has no {attribute!r}", hint=hint)
        value = getattr(value, name)
    return value


def _is_model(value: Any) -> bool:
    """A live model of a framework; classes and functions are not."""
    from layertap.runtimes.registry import runtimes

    roots = {root for runtime in runtimes() for root in runtime.roots}
    return not isinstance(value, type) and any(
        base.__module__.partition(".")[0] in roots for base in type(value).__mro__
    )


def _call(function: Any, text: str, kind: type[LayertapError]) -> Any:
    try:
        return function()
    except Exception as error:
        raise kind(
            f"{text} failed: {type(error).__name__}: {error}",
            hint="it is called without arguments; layertap --debug shows where it failed",
        ) from error


__all__ = ["is_reference", "open_model", "resolve_batches", "resolve_model"]
