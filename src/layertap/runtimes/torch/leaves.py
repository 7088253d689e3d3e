"""The tensors inside what a module takes and returns, and what each is called."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from layertap.core.names import unused

Path = tuple[int | str, ...]

_DEEPEST = 32
"""Structures nested deeper than this hold themselves."""


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif len(path) > _DEEPEST:
        return
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from _walk(item, (*path, i))
    elif isinstance(value, Mapping):
        for key in list(value):
            yield from _walk(value[key], (*path, str(key)))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _walk(getattr(value, field.name, None), (*path, field.name))


def suffix(path: Path) -> str:
    """What follows a tap's base name: nothing for the first leaf of (nested) tuples, else its
    path, as in ``:1``, ``:1.0``, ``:pair.0``."""
    first = all(step == 0 and isinstance(step, int) for step in path)
    return "" if first else ":" + ".".join(map(str, path))


def output_leaves(value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in a module's output, each with its suffix; unique also where keys look alike."""
    return _unique(_walk(value, ()))


def argument_leaves(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in a module's arguments with their paths, ``args.0`` or ``kwargs.mask``: never equal
    to an output's suffix, which is empty or starts with a colon."""
    for value, head in ((args, "args"), (kwargs, "kwargs")):
        for name, tensor in _unique(_walk(value, (head,))):
            yield name.removeprefix(":"), tensor


def _unique(leaves: Iterator[tuple[Path, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    seen: set[str] = set()
    for path, tensor in leaves:
        yield unique(suffix(path), seen), tensor


def unique(name: str, taken: set[str]) -> str:
    """``name``, or ``name~1`` and so on where it is taken; adds it to ``taken``."""
    candidate = unused(name, taken, "~")
    taken.add(candidate)
    return candidate
