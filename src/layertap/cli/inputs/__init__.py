"""Inputs from files, random numbers or the user's code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from layertap.cli.inputs.archive import arrays_of
from layertap.cli.inputs.arrays import read_npy, read_npz, read_raw
from layertap.cli.inputs.audio import read_wav
from layertap.cli.inputs.batches import UserBatches
from layertap.cli.inputs.given import (
    Given,
    Scaling,
    Wanted,
    input_axes,
    parse_fraction,
    wanted_inputs,
)
from layertap.cli.inputs.images import SUFFIXES, ImageStack
from layertap.cli.inputs.stacks import Joined, RandomStack, Stack
from layertap.cli.source import is_reference, resolve_batches
from layertap.cli.table import counted
from layertap.core.dtypes import Array
from layertap.core.messages import listed
from layertap.core.protocols import Session
from layertap.errors import FeedError

RAW = frozenset({".bin", ".raw"})
READABLE = SUFFIXES | RAW | {".npy", ".npz", ".wav"}


@dataclass
class Inputs:
    """Batches of named inputs, read as they are asked for.

    ``samples`` is their number. ``notes`` are what the user should know about the reading. ``axes``
    count samples in what is fed, where that is not axis 0; with None the one sample that a stack
    holds is passed with each batch.
    """

    stacks: Mapping[str, Stack]
    batch_size: int
    notes: list[str] = field(default_factory=list)
    axes: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        counted = (
            len(stack) for name, stack in self.stacks.items() if self._axis(name) is not None
        )
        return next(counted, 1)

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for start in range(0, self.samples, self.batch_size):
            stop = min(start + self.batch_size, self.samples)
            yield {name: self._read(name, start, stop) for name in self.stacks}

    def _axis(self, name: str) -> int | None:
        return self.axes.get(name, 0)

    def _read(self, name: str, start: int, stop: int) -> Array:
        axis = self._axis(name)
        if axis is None:
            whole: Array = self.stacks[name].read(0, 1)[0]
            return whole
        rows = self.stacks[name].read(start, stop)
        return np.moveaxis(rows, 0, axis) if axis else rows


def read_inputs(given: Given, session: Session) -> Inputs | UserBatches:
    """What the command line says to feed to ``session``. Raises FeedError."""
    if given.batch_size < 1:
        size = given.batch_size
        raise FeedError(f"a batch size of {size} is not possible", hint="give 1 or more")
    references = [text for text in given.files if is_reference(text)]
    if references:
        if len(given.files) > 1 or given.random is not None:
            raise FeedError(
                f"{references[0]} yields whole batches", hint="it cannot be mixed with other inputs"
            )
        return UserBatches(resolve_batches(references[0]), references[0])
    wanted = wanted_inputs(given, session)
    notes: list[str] = []
    stacks = _from_files(given, wanted, session, notes)
    if given.random is not None:
        _fill_random(stacks, given, wanted, session)
    if not stacks:
        raise FeedError("nothing to feed the model", hint="-i FILE, or --random SEED")
    inputs = Inputs(stacks, given.batch_size, notes, input_axes(given.batch_axis, session))
    _check_lengths(inputs)
    return inputs


def check_files(given: Given) -> None:
    """Raise FeedError where the command line feeds nothing, or files that are not there, whatever
    the model takes."""
    if not given.files and given.random is None:
        raise FeedError("nothing to feed the model", hint="-i FILE, or --random SEED")
    for text in given.files:
        named = text.partition("=")[2]  # it may be NAME=FILE
        if not is_reference(text) and not (named and Path(named).exists()):
            _expand(text if not named or Path(text).exists() else named)


def first_batch(inputs: Inputs | UserBatches) -> Any:
    """The first batch, as an example for tracing. Raises FeedError without one."""
    for batch in inputs:
        return batch
    raise FeedError("the input holds no samples", hint="give at least one")


def _required(session: Session, wanted: Mapping[str, Wanted]) -> list[str]:
    return [spec.name for spec in session.inputs if spec.required and spec.name in wanted]


def _fill_random(
    stacks: dict[str, Stack], given: Given, wanted: Mapping[str, Wanted], session: Session
) -> None:
    """Random numbers for the required inputs that no file gives."""
    if given.samples is not None and given.samples < 1:
        raise FeedError(f"{given.samples} samples are too few", hint="give 1 or more")
    for position, name in enumerate(_required(session, wanted)):
        if name not in stacks:
            stacks[name] = RandomStack(given, wanted[name], position)


def _check_lengths(inputs: Inputs) -> None:
    """Raise FeedError where inputs hold more or fewer samples than others."""
    for name, stack in inputs.stacks.items():
        whole = inputs.axes.get(name, 0) is None
        if whole and len(stack) != 1:
            raise FeedError(
                f"{name!r} has no batch axis, and {len(stack)} values are given for it",
                hint="give one, which is passed with each batch",
            )
    counts = {n: len(s) for n, s in inputs.stacks.items() if inputs.axes.get(n, 0) is not None}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise FeedError(f"the inputs hold different numbers of samples: {told}", hint="match them")


def _from_files(
    given: Given, wanted: Mapping[str, Wanted], session: Session, notes: list[str]
) -> dict[str, Stack]:
    parts: dict[str, list[Stack]] = {}
    for text in given.files:
        name, pattern = _split_name(text, wanted)
        paths = _expand(pattern)
        for path in [path for path in paths if path.suffix.lower() == ".npz"]:
            for member, stack in _from_npz(path, name, given, wanted, session, notes).items():
                parts.setdefault(member, []).append(stack)
        others = [path for path in paths if path.suffix.lower() != ".npz"]
        if others:
            chosen = name or _only(wanted, session, pattern)
            parts.setdefault(chosen, []).extend(_stacks(others, given, wanted[chosen], notes))
    return {n: stacks[0] if len(stacks) == 1 else Joined(stacks) for n, stacks in parts.items()}


def _split_name(text: str, wanted: Mapping[str, Wanted]) -> tuple[str, str]:
    """The input's name, empty without one, and the path."""
    for name, own in _names(wanted).items():
        if text.startswith(f"{name}="):
            return own, text[len(name) + 1 :]
    name, equals, path = text.partition("=")
    if equals and not Path(text).exists() and Path(path).exists():
        raise FeedError(f"the model has no input {name!r}", hint=f"it has {listed(wanted)}")
    return "", text


def _names(wanted: Mapping[str, Wanted]) -> dict[str, str]:
    """The input that each of its names stands for."""
    further = {name: own for own, one in wanted.items() for name in one.also}
    return further | {own: own for own in wanted}


def _only(wanted: Mapping[str, Wanted], session: Session, text: str) -> str:
    """The one input that a file without a name is for."""
    names = _required(session, wanted) or list(wanted)
    if len(names) == 1:
        return names[0]
    if not names:
        raise FeedError("the model has no named input", hint="use -i MODULE:FUNCTION")
    raise FeedError(
        f"the model has {len(names)} inputs: {listed(names)}",
        hint=f"say which one it is for: -i NAME={text}",
    )


def _expand(text: str) -> list[Path]:
    """A file, the readable files of a folder, or what a glob finds, sorted."""
    path = Path(text)
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in READABLE and p.is_file())
    else:
        root = Path(path.anchor) if path.is_absolute() else Path()
        pattern = str(path.relative_to(root)) if path.is_absolute() else text
        found = sorted(p for p in root.glob(pattern) if p.is_file())
    if not found:
        raise FeedError(
            f"there is no {'input in' if path.is_dir() else 'file'} {text!r}",
            hint=f"inputs end in {', '.join(sorted(READABLE))}, or are MODULE:FUNCTION",
        )
    for path in found:
        if path.suffix.lower() not in READABLE:
            raise FeedError(
                f"cannot tell what {str(path)!r} holds",
                hint=f"inputs end in {', '.join(sorted(READABLE))}",
            )
    return found


def _from_npz(
    path: Path,
    name: str,
    given: Given,
    wanted: Mapping[str, Wanted],
    session: Session,
    notes: list[str],
) -> dict[str, Stack]:
    """The members named like inputs; a single array is for the only input."""
    names = _names(wanted)
    arrays = {names.get(n, n): array for n, array in arrays_of(path).items()}
    matching = {n: array for n, array in arrays.items() if n in wanted and name in ("", n)}
    if not matching and len(arrays) == 1:
        matching = {name or _only(wanted, session, str(path)): next(iter(arrays.values()))}
    if not matching:
        there = listed(arrays) or "no arrays"
        raise FeedError(
            f"{path} holds {there}; the model takes {listed(wanted)}",
            hint="name the arrays like the inputs, or keep one array alone",
        )
    ignored = [n for n in arrays if n not in matching]
    if ignored:
        why = "" if name else ", the model has no such input"
        notes.append(f"{path}: {listed(ignored)} not used{why}")
    return {n: read_npz(path, array, given, wanted[n]) for n, array in matching.items()}


def _stacks(paths: list[Path], given: Given, wanted: Wanted, notes: list[str]) -> list[Stack]:
    images = [path for path in paths if path.suffix.lower() in SUFFIXES]
    stacks: list[Stack] = [ImageStack(images, given, wanted)] if images else []
    for path in paths:
        suffix = path.suffix.lower()
        if suffix == ".npy":
            stacks.append(read_npy(path, given, wanted))
        elif suffix == ".wav":
            stacks.append(read_wav(path, given, wanted))
        elif suffix in RAW:
            stacks.append(read_raw(path, given, wanted))
            read = f"{path}: {counted(len(stacks[-1]), 'sample')} of {given.dtype or wanted.dtype}"
            notes.append(read + ("" if given.dtype else ", the model's dtype"))
    return stacks


__all__ = [
    "Given",
    "Inputs",
    "Scaling",
    "UserBatches",
    "check_files",
    "first_batch",
    "parse_fraction",
    "read_inputs",
]
