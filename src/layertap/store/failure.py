"""What the operating system refused, as a StoreError that says how to mend it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np

from layertap.core.graph import TapPoint
from layertap.errors import StoreError

_FULL = "free some space and go on with resume (--resume); what was committed is intact"
_DENIED = "choose a folder that you may write to"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter path",
}


def cannot_write(path: Path, error: OSError) -> StoreError:
    """The error for a write to the run at ``path`` that failed; raise it from ``error``."""
    hint = _HINTS.get(error.errno or 0, "what was committed is intact; go on with resume")
    return StoreError(f"cannot write the run {path}: {error.strerror or error}", hint=hint)


def damaged(path: Path, what: str) -> StoreError:
    """The error for a run that holds less than, or not what, its journal says."""
    return StoreError(
        f"the run is damaged: {path} {what}",
        hint="copy the run again, or capture it anew with overwrite (--overwrite)",
    )


def check_dtype(tap: TapPoint, old: np.dtype[Any] | None, new: np.dtype[Any]) -> None:
    """Raise StoreError for rows of another element type than those before; the order of bytes
    does not matter."""
    if old is not None and new != old and new.name != old.name:
        raise StoreError(
            f"{tap.name!r} changed its type from {old} to {new}",
            hint="feed every batch with the same dtypes",
        )
