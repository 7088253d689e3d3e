"""Hear the layer calls of one thread, without touching any model.

``Layer.__call__``, ``Operation.__call__``, what recurrent layers loop with and what runs a model
without calling it are replaced, in their classes and modules, while somebody listens, and put back
when the last listener leaves. Calls in threads that do not listen pass through.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

import keras
from keras.src import backend

from layertap import recording
from layertap.core.interrupts import Deferred
from layertap.runtimes.keras.recurrent import (
    Call,
    States,
    Wrapper,
    forget,
    heard_fused,
    heard_rnn,
)


class Listener(Protocol):
    """Hears calls in the order of a depth-first walk: every ``enter`` has one ``leave`` or, when
    the call raised, one ``fail``. ``root`` is the model that it is about."""

    root: Any

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

    def looping(self, model: Any, method: str, /) -> AbstractContextManager[None]:
        """While ``method`` of ``model`` runs it, in a function that may be compiled."""
        ...


class _Thread(threading.local):
    listeners: tuple[Listener, ...] = ()
    fused: bool = True
    loops: tuple[Call, ...] = ()
    """The calls of recurrent layers whose loop over time is about to begin."""


_thread = _Thread()
_lock = threading.Lock()
_users = 0
_originals: list[tuple[Any, str, Callable[..., Any]]] = []

RUNS = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch")
"""Methods of ``keras.Model`` that may run the model in a function compiled earlier."""

LOOPS: list[tuple[Any, str, Wrapper]] = []
"""What a backend loops with, and what else of it is replaced: whose attribute, its name, and the
replacement's maker."""


def is_heard() -> bool:
    """Whether somebody listens to this thread."""
    return bool(_thread.listeners)


@contextmanager
def listening(
    listener: Listener | None,
    *,
    alone: bool = False,
    fused: bool = True,
    scope: AbstractContextManager[Any] | None = None,
) -> Iterator[None]:
    """Let ``listener`` hear this thread's layer calls; ``alone``: and no other listener, or with
    None nobody. ``fused``: whether recurrent layers may run in fused kernels meanwhile. ``scope``
    is entered too: an interrupt waits while Keras is changed and put back.
    """
    new = () if listener is None else (listener,)
    heard = _heard_by(new, alone, fused)
    with Deferred() as deferred, scope or nullcontext(), _patched(), heard, deferred.allowed():
        yield


@contextmanager
def _heard_by(new: tuple[Listener, ...], alone: bool, fused: bool) -> Iterator[None]:
    before, fused_before, loops = _thread.listeners, _thread.fused, _thread.loops
    _thread.listeners = new if alone else (*before, *new)
    _thread.fused = fused
    try:
        with recording.listening(_record if new else None, alone=alone):
            yield
    finally:
        _thread.listeners = (
            before if alone else tuple(one for one in _thread.listeners if one not in new)
        )
        _thread.fused, _thread.loops = fused_before, loops
        forget()


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


@contextmanager
def _patched() -> Iterator[None]:
    """Keras with what tells the listeners, while anybody is in here."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            for owner, name, wrap in _patches():
                _replace(owner, name, wrap)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            while _users == 0 and _originals:
                owner, name, original = _originals.pop()
                setattr(owner, name, original)


def _replace(owner: Any, name: str, wrap: Wrapper) -> None:
    original = getattr(owner, name)
    _originals.append((owner, name, original))
    setattr(owner, name, wrap(original))


def _patches() -> Iterator[tuple[Any, str, Wrapper]]:
    for kind in (keras.Layer, keras.Operation):
        yield kind, "__call__", functools.partial(_heard, kind)
    yield keras.Layer, "stateless_call", _stateless
    for name in RUNS:
        owner = next((one for one in keras.Model.__mro__ if name in vars(one)), None)
        if owner is not None:
            yield owner, name, functools.partial(_looping, name)
    yield keras.layers.RNN, "call", _recurrent
    yield backend, "rnn", heard_rnn
    for name in ("lstm", "gru"):
        yield backend, name, heard_fused
    for name in ("bidirectional_lstm", "bidirectional_gru"):
        if hasattr(backend, name):
            yield backend, name, _refusable
    yield from LOOPS


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


def _stateless(original: Callable[..., Any]) -> Callable[..., Any]:
    """``stateless_call``, which goes to ``call`` without ``__call__``."""

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        entered: list[Listener] = []
        try:
            for listener in (one for one in _thread.listeners if one.root is self):
                listener.enter(self, args[2:], kwargs)
                entered.append(listener)
            returned = original(self, *args, **kwargs)
        except BaseException:
            for listener in reversed(entered):
                listener.fail()
            raise
        for listener in reversed(entered):
            listener.leave(returned[0])
        return returned

    return call


def _looping(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """A method that may run the model in a function that Keras compiled earlier."""

    @functools.wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for listener in _thread.listeners:
                stack.enter_context(listener.looping(self, name))
            return original(self, *args, **kwargs)

    return run


def _recurrent(original: Callable[..., Any]) -> Callable[..., Any]:
    """``RNN.call``, outside of whose loop over time nothing is heard: it tries cells out."""

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        listeners = _thread.listeners
        states = [s for one in listeners if (s := one.states(self)) is not None]
        if not states:
            return original(self, *args, **kwargs)
        _hear_loop_of(type(self))
        heard = Call(
            self,
            states,
            lambda: _muting(listeners),
            lambda: _muting(listeners, False),
            fused=_thread.fused,
        )
        before = _thread.loops
        _thread.loops = (*before, heard)
        try:
            with _muting(listeners):
                return original(self, *args, **kwargs)
        finally:
            _thread.loops = before

    return call


def _hear_loop_of(kind: type) -> None:
    """Replace ``inner_loop`` where a class of recurrent layers has it, until nobody listens."""
    owner = next(one for one in kind.__mro__ if "inner_loop" in vars(one))
    with _lock:
        if not any(one is owner and name == "inner_loop" for one, name, _ in _originals):
            _replace(owner, "inner_loop", _inner_loop)


def _inner_loop(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        begun = _thread.loops
        if not begun or begun[-1].layer is not self:
            return original(self, *args, **kwargs)
        # What a layer's own loop calls of its base class is a part of it.
        _thread.loops = begun[:-1]
        inner = functools.partial(original, self)
        with begun[-1].heard():
            return begun[-1].inner_loop(inner, *args, **kwargs)

    return loop
