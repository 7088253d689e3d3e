"""Hear the layer calls of one thread, without touching any model.

``Layer.__call__`` and ``Operation.__call__`` are replaced while somebody listens, and put back
when the last listener leaves. Calls in threads that do not listen pass through.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import keras


class Listener(Protocol):
    """Hears calls in the order of a depth-first walk: every ``enter`` has one ``leave`` or, when
    the call raised, one ``fail``."""

    def enter(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None: ...

    def leave(self, outputs: Any) -> None: ...

    def fail(self) -> None: ...


class _Thread(threading.local):
    listeners: tuple[Listener, ...] = ()


_thread = _Thread()
_lock = threading.Lock()
_users = 0
_originals: dict[type, Callable[..., Any]] = {}


@contextmanager
def listening(listener: Listener, *, alone: bool = False) -> Iterator[None]:
    """Let ``listener`` hear this thread's layer calls; ``alone``: and no other listener."""
    _patch()
    before = _thread.listeners
    _thread.listeners = (listener,) if alone else (*before, listener)
    try:
        yield
    finally:
        _thread.listeners = (
            before if alone else tuple(one for one in _thread.listeners if one is not listener)
        )
        _unpatch()


def _patch() -> None:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            for kind in (keras.Layer, keras.Operation):
                _originals[kind] = kind.__call__
                kind.__call__ = _heard(kind, kind.__call__)


def _unpatch() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            for kind, original in _originals.items():
                kind.__call__ = original  # type: ignore[method-assign]
            _originals.clear()


def _heard(kind: type, original: Callable[..., Any]) -> Callable[..., Any]:
    operations = kind is keras.Operation

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        listeners = _thread.listeners
        # A layer's own __call__ goes on to Operation.__call__: that is the same call.
        if not listeners or (operations and isinstance(self, keras.Layer)):
            return original(self, *args, **kwargs)
        entered: list[Listener] = []
        try:
            for listener in listeners:
                listener.enter(self, args, kwargs)
                entered.append(listener)
            outputs = original(self, *args, **kwargs)
        except BaseException:
            for listener in reversed(entered):
                listener.fail()
            raise
        for listener in reversed(entered):
            listener.leave(outputs)
        return outputs

    return call
