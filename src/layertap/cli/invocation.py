"""How layertap was called, so that a command it prints can be pasted."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

NAME = "layertap"


def program() -> str:
    """``layertap``, or the way it was called where the shell would not find it."""
    called = sys.argv[0]
    if Path(called).parts[-2:] == (NAME, "__main__.py") and not shutil.which(NAME):
        return f"{shlex.quote(sys.executable)} -m {NAME}"
    if Path(called).name != NAME or shutil.which(NAME):
        return NAME
    return shlex.quote(called)
