"""Python's garbage collector, while many objects are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from looking through everything that is alive again and again
    while a large structure is built, of which nothing is garbage. Also as a decorator.

    Afterwards it is as it was: switched off, if the caller had done so.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
