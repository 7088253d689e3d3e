"""Native log lines of TensorFlow, which no setting turns off, kept off the user's screen."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_LOG_LINE = re.compile(rb"WARNING: All log messages before absl|[IWE]\d{4} \d\d")
"""What the absl log library writes before TensorFlow has set it up, all severities but fatal."""


@contextmanager
def without_native_logs() -> Iterator[None]:
    """Hold what is written to the process's standard error, and let through at the end whatever
    is no log line. Everything passes with ``--debug``."""
    if "--debug" in sys.argv or sys.__stderr__ is None:
        yield
        return
    sys.__stderr__.flush()
    target = 2
    kept = os.dup(target)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), target)
        try:
            yield
        finally:
            sys.__stderr__.flush()
            os.dup2(kept, target)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not _LOG_LINE.match(line):
                    os.write(target, line)


__all__ = ["without_native_logs"]
