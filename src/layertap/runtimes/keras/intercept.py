"""Hear the layer calls of one thread, without touching any model.

``Layer.__call__``, ``Operation.__call__`` and what recurrent layers loop with are replaced while
somebody listens, and put back when the last listener leaves. Calls in threads that do not listen
pass through.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import keras
from keras.src import backend

from layertap import recording
from layertap.runtimes.keras.recurrent import Call, States, Wrapper, heard_fused, heard_rnn


class Listener(Protocol):
    """Hears calls in the order of a depth-first walk: every ``enter`` has one ``leave`` or, when
    the call raised, one ``fail``."""

    def enter(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None: ...

    def leave(self, outputs: Any) -> None: ...

    def fail(self) -> None: ...

    def record(self, name: str, value: Any) -> None:
        """Hear of a value that the user's code records."""
        ...

    def states(self, layer: Any) -> States | None:
        """What to take from the call of the recurrent ``layer`` that begins; None: nothing."""
        ...

    def muting(self, on: bool, /) -> AbstractContextManager[None]:
        """While what is computed is a trial of Keras's, or our own; off again in there."""
        ...


class _Thread(threading.local):
    listeners: tuple[Listener, ...] = ()
    fused: bool = True


_thread = _Thread()
_lock = threading.Lock()
_users = 0
_originals: list[tuple[Any, str, Callable[..., Any]]] = []

LOOPS: list[tuple[Any, str, Wrapper]] = []
"""What a backend loops with, and what else of it is replaced: whose attribute, its name, and the
replacement's maker."""


def is_heard() -> bool:
    """Whether somebody listens to this thread."""
    return bool(_thread.listeners)


@contextmanager
def listening(listener: Listener, *, alone: bool = False, fused: bool = True) -> Iterator[None]:
    """Let ``listener`` hear this thread's layer calls; ``alone``: and no other listener. ``fused``:
    whether recurrent layers may run in fused kernels meanwhile."""
    _patch()
    before, fused_before = _thread.listeners, _thread.fused
    _thread.listeners = (listener,) if alone else (*before, listener)
    _thread.fused = fused
    try:
        with recording.listening(_record, alone=alone):
            yield
    finally:
        _thread.listeners = (
            before if alone else tuple(one for one in _thread.listeners if one is not listener)
        )
        _thread.fused = fused_before
        _unpatch()


def _record(name: str, value: Any) -> None:
    for listener in _thread.listeners:
        listener.record(name, value)


@contextmanager
def _muting(listeners: tuple[Listener, ...], on: bool = True) -> Iterator[None]:
    """Keep what happens from ``listeners``, or, inside of that, let them hear again."""
    before = _thread.listeners
    _thread.listeners = () if on else listeners
    try:
        with ExitStack() as stack:
            for listener in listeners:
                stack.enter_context(listener.muting(on))
            yield
    finally:
        _thread.listeners = before


def _patch() -> None:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            for owner, name, wrap in _patches():
                original = getattr(owner, name)
                _originals.append((owner, name, original))
                setattr(owner, name, wrap(original))


def _patches() -> Iterator[tuple[Any, str, Wrapper]]:
    for kind in (keras.Layer, keras.Operation):
        yield kind, "__call__", functools.partial(_heard, kind)
    yield keras.layers.RNN, "call", _recurrent
    yield backend, "rnn", heard_rnn
    for name in ("lstm", "gru"):
        yield backend, name, heard_fused
    for name in ("bidirectional_lstm", "bidirectional_gru"):
        if hasattr(backend, name):
            yield backend, name, _refusable
    yield from LOOPS


def _unpatch() -> None:
    global _users
    with _lock:
        _users -= 1
        while _users == 0 and _originals:
            owner, name, original = _originals.pop()
            setattr(owner, name, original)


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


def _refusable(original: Callable[..., Any]) -> Callable[..., Any]:
    """A fused kernel that a listener may not want; Keras then calls layer by layer."""

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not _thread.fused:
            raise NotImplementedError
        return original(*args, **kwargs)

    return function


def _recurrent(original: Callable[..., Any]) -> Callable[..., Any]:
    """``RNN.call``, outside of whose loop over time nothing is heard: it tries cells out."""

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        listeners = _thread.listeners
        states = [s for one in listeners if (s := one.states(self)) is not None]
        if not states:
            return original(self, *args, **kwargs)
        own, inner = vars(self), self.inner_loop
        before, thread = own.get("inner_loop"), threading.get_ident()

        def inner_loop(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != thread:
                return inner(*args, **kwargs)
            with _muting(listeners, False):
                return heard.inner_loop(inner, *args, **kwargs)

        heard = Call(self, states, lambda: _muting(listeners), fused=_thread.fused)
        # The object's own dictionary: Keras tracks, and locks, what is set as an attribute.
        own["inner_loop"] = inner_loop
        try:
            with _muting(listeners):
                return original(self, *args, **kwargs)
        finally:
            own.pop("inner_loop", None)
            if before is not None:
                own["inner_loop"] = before

    return call
