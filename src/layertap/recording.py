"""``layertap.record``: name a value in your own code, so that a capture reads it.

No framework is imported here. A runtime listens while it runs a model; until one does, a call costs
a look at one global.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Value = TypeVar("Value")

OnRecord = Callable[[str, Any], None]
"""Gets the name and the value of each :func:`record` in the thread that listens."""


class _Thread(threading.local):
    listeners: tuple[OnRecord, ...] = ()


_thread = _Thread()
_lock = threading.Lock()
_listeners = 0


def record(name: str, value: Value) -> Value:
    """Return ``value`` as it is; while a model is read, it is a tap called ``layer/name``.

    Call it anywhere in a model: in a Keras layer's ``call``, in a PyTorch module's ``forward``, in
    a function that they call. ``value`` is a tensor of the model's framework, or a tuple, list or
    dict of tensors. In the loop of a compiled graph each iteration gives one value; they are
    stacked.
    """
    if _listeners:
        for listener in dict.fromkeys(_thread.listeners):
            listener(name, value)
    return value


@contextmanager
def listening(listener: OnRecord | None, *, alone: bool = True) -> Iterator[None]:
    """Let ``listener``, ``alone`` or together with those before it, hear what this thread records;
    None: nobody."""
    global _listeners
    before = _thread.listeners
    new = () if listener is None else (listener,)
    with _lock:
        _listeners += 1
    _thread.listeners = new if alone else (*before, *new)
    try:
        yield
    finally:
        _thread.listeners = before if alone else _without(_thread.listeners, new)
        with _lock:
            _listeners -= 1


def _without(listeners: tuple[OnRecord, ...], gone: tuple[OnRecord, ...]) -> tuple[OnRecord, ...]:
    """Each of ``gone`` leaves once: those that came later may still be there."""
    left = list(listeners)
    for one in gone:
        if one in left:
            left.remove(one)
    return tuple(left)
