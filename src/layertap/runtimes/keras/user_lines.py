"""Which line of the user's own code computes something: framework code left out."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_FRAMEWORKS = ("keras", "tensorflow", "jax", "jaxlib", "torch", "numpy", "optree")
_OWN = str(Path(__file__).parents[2])
_CALLS_THE_MODEL = str(Path(__file__).with_name("inputs.py"))


def user_line(frames: Iterable[tuple[str, int]]) -> str:
    """``file:line`` of the innermost frame that is the user's and inside the model's call.

    ``frames`` are files and line numbers, innermost first. Empty where only framework code is
    between the model's call and the operation, as in a model of Keras's own layers.
    """
    for file, line in frames:
        if file == _CALLS_THE_MODEL:
            return ""
        if not _is_foreign(file):
            return f"{_shown(file)}:{line}"
    return ""


def here() -> Iterable[tuple[str, int]]:
    """The frames of the caller, innermost first."""
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]


@cache
def _is_foreign(file: str) -> bool:
    if file.startswith(("<", _OWN)) or "__autograph_generated_file" in file:
        return True
    return any(file.startswith(folder) for folder in _folders())


@cache
def _folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    installed = {paths["purelib"], paths["platlib"]}
    frameworks = [str(Path(folder, name)) for folder in installed for name in _FRAMEWORKS]
    return (*frameworks, *(f"{paths['stdlib']}/{name}" for name in ("contextlib", "functools")))


@cache
def _shown(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
