"""What a framework's own error message says, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MOST = 300
_STYLE = re.compile(r"\x1b\[\d*m")
_NODE = "[[{{node"
"""How TensorFlow goes on after it has said what went wrong, and where the lines of code were."""
_INFERENCE = "Error encountered:\n"
"""How Keras goes on after it has said that a layer's output shape cannot be inferred."""


def brief(error: BaseException) -> str:
    """The line of ``error`` that says what is wrong: the first, unless that is a mere heading of
    TensorFlow's or Keras's."""
    text = _STYLE.sub("", str(error)).rpartition(_INFERENCE)[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    found = lines[0]
    if found == "in user code:":
        found = lines[-1]
    elif found == "Graph execution error:":
        end = next((i for i, line in enumerate(lines) if line.startswith(_NODE)), len(lines))
        found = lines[end - 1]
    elif found.startswith("Exception encountered when calling") and len(lines) > 1:
        found = f"{found.rstrip('.')}: {lines[1]}"
    return found if len(found) <= _MOST else found[:_MOST] + "..."


def abridged(text: str, most: int = 80) -> str:
    """``text``, or its beginning where it is longer than ``most``: what a user or a file gave may
    have any length, a message is to be read."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def listed(names: Iterable[str], most: int = 6) -> str:
    """``a, b, c``, and of many names the first few and how many more there are."""
    every = [abridged(name, 48) for name in names]
    more = len(every) - most
    return ", ".join(every if more <= 1 else [*every[:most], f"and {more:,} more"])


__all__ = ["abridged", "brief", "listed"]
