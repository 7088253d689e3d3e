"""Hearing the calls of modules, of one thread, without touching a module.

Every call of a module goes through a function of ``nn.Module``'s, and what a module's class calls
``forward`` through that class. While somebody listens, these two are others, which pass on what
they hear of a module that is listened to, in a thread that is listened to, and everything else as
it is. So a call is heard after all hooks of the module, one of ``forward`` itself is heard too,
copies and pickles of a module know nothing of it, and other threads run undisturbed.
"""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from torch import nn
from torch.compiler import is_dynamo_compiling

from layertap.runtimes.torch import internals

Token = TypeVar("Token")


class Ear(Protocol[Token]):
    """What hears the calls of ``modules``, known by identity, each with its position.

    ``enter`` gets the position of a module and the arguments of its ``forward``, and returns what
    ``leave`` gets back with the output, or ``failed`` when the call ends by an exception.
    """

    @property
    def modules(self) -> Mapping[int, int]: ...

    def enter(self, slot: int, args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> Token: ...

    def leave(self, token: Token, output: Any, /) -> None: ...

    def failed(self, token: Token, /) -> None: ...


class _Here(threading.local):
    """What is known of this thread.

    who: the thread whose calls those of this one are; a thread that a model starts within a call
        belongs to the call, for as long as it lives.
    calls: the calls that are being heard, by identity of the module, the innermost one last.
    waiting: what is to hear of the arguments of the innermost call, once hooks are through.
    """

    def __init__(self) -> None:
        self.who = threading.get_ident()
        self.calls: list[int] = []
        self.waiting: list[_Heard[Any]] = []


_here = _Here()
_NOBODY: list[_Heard[Any]] = []
_captures: dict[int, Ear[Any]] = {}
"""Ears that hear one thread, by thread; they alone hear it."""
_attached: tuple[Ear[Any], ...] = ()
"""Ears that hear all threads."""

Ears = tuple[tuple[Ear[Any], int], ...]
"""Who hears a call, each with the position that it knows the module by."""
_NOT_HEARD: Ears = ()


def caller() -> int:
    """The thread that the calls in this thread belong to."""
    return _here.who


def _ears(module: nn.Module) -> Ears:
    """Who hears a call of ``module`` in this thread, and its position for them."""
    key, ear = id(module), _captures.get(_here.who)
    if ear is not None:
        slot = ear.modules.get(key)
        return _NOT_HEARD if slot is None else ((ear, slot),)
    if not _attached:
        return _NOT_HEARD
    return tuple([(ear, ear.modules[key]) for ear in _attached if key in ear.modules])


class _Heard(Generic[Token]):
    """One call of a module for one ear."""

    __slots__ = ("ear", "entered", "slot", "token")

    def __init__(self, ear: Ear[Token], slot: int) -> None:
        self.ear, self.slot, self.entered = ear, slot, False
        self.token: Token

    def enter(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not self.entered:
            self.entered = True
            self.token = self.ear.enter(self.slot, args, kwargs)

    def leave(self, output: Any) -> None:
        self.ear.leave(self.token, output)

    def failed(self) -> None:
        if self.entered:
            self.ear.failed(self.token)


def _hear(
    module: nn.Module,
    ears: Ears,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    hooked: bool,
) -> Any:
    """Call ``function`` and tell ``ears``; of the arguments by and by where hooks of the module's
    may still change them."""
    heard = [_Heard(*ear) for ear in ears]
    waiting, _here.waiting = _here.waiting, heard if hooked else []
    _here.calls.append(id(module))
    try:
        if not hooked:
            for each in heard:
                each.enter(args, kwargs)
        output = function(*args, **kwargs)
        for each in heard:
            each.enter(args, kwargs)  # a call that does not go through Python's forward
            each.leave(output)
        return output
    except BaseException:
        for each in heard:
            each.failed()
        raise
    finally:
        _here.calls.pop()
        _here.waiting = waiting


def _calls(function: Any) -> Any:
    """In place of ``function``, which every call of a module goes through."""

    def call(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
        if is_dynamo_compiling():
            return function(module, *args, **kwargs)
        ears = _ears(module)
        if not ears:
            return function(module, *args, **kwargs)
        hooked = internals.has_pre_hooks(module)
        if len(ears) == 1 and not hooked:
            return _tell(*ears[0], module, function, args, kwargs)
        return _hear(module, ears, types.MethodType(function, module), args, kwargs, hooked=hooked)

    return call


def _tell(
    ear: Ear[Token],
    slot: int,
    module: nn.Module,
    function: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """What :func:`_hear` does, where one ear hears a module without hooks before its forward: most
    calls, hence in as few steps as possible."""
    token = ear.enter(slot, args, kwargs)
    here = _here
    calls, waiting, here.waiting = here.calls, here.waiting, _NOBODY
    calls.append(id(module))
    try:
        output = function(module, *args, **kwargs)
    except BaseException:
        ear.failed(token)
        raise
    finally:
        calls.pop()
        here.waiting = waiting
    ear.leave(token, output)
    return output


def _compiled_calls(function: Any) -> Any:
    """In place of ``nn.Module.__call__``: a module that was compiled in place keeps the function
    that its calls went through then."""
    hear = _calls(function)

    def call(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
        compiled = internals.is_compiled_in_place(module)
        return (hear if compiled else function)(module, *args, **kwargs)

    return call


class _Forward:
    """In place of ``forward`` of a class of modules."""

    def __init__(self, function: types.FunctionType) -> None:
        self.function = function

    def __get__(self, module: nn.Module | None, kind: type | None = None) -> Any:
        bound = self.function.__get__(module, kind)
        if module is None or is_dynamo_compiling():
            return bound
        here = _here
        if here.calls and here.calls[-1] == id(module):
            return _Entering(bound, here.waiting) if here.waiting else bound
        ears = _ears(module)
        return _direct(bound, ears) if ears else bound


class _Entering:
    """The ``forward`` of a call that is being heard, which tells what it gets of the hooks."""

    def __init__(self, method: types.MethodType, heard: list[_Heard[Any]]) -> None:
        self.__wrapped__ = method
        self._heard = heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for each in self._heard:
            each.enter(args, kwargs)
        return self.__wrapped__(*args, **kwargs)


def _direct(method: types.MethodType, ears: Ears) -> types.MethodType:
    """A ``forward`` that may be called without its module. It is a method like the other, with its
    source and its globals, for those who look into it, such as TorchScript."""
    hear = _hear

    def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return hear(module, ears, method, args, kwargs, hooked=False)

    original: Any = method.__func__
    alike = types.FunctionType(
        forward.__code__, original.__globals__, original.__name__, None, forward.__closure__
    )
    return types.MethodType(functools.update_wrapper(alike, original), method.__self__)


def _starts(function: Any) -> Any:
    """In place of ``Thread.start``: a thread that is started within a call belongs to it."""

    def start(thread: threading.Thread) -> None:
        if _here.calls or _here.who in _captures:
            who, run = _here.who, thread.run

            def heard() -> None:
                _here.who = who
                run()

            thread.run = heard  # type: ignore[method-assign]
        function(thread)

    return start


class Exchange:
    """Attributes of classes that are others while somebody needs that."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._kept: dict[tuple[type, str], tuple[Any, Any]] = {}
        self._users: dict[tuple[type, str], int] = {}

    def begin(self, kind: type, name: str, exchanged: Callable[[Any], Any]) -> None:
        """``exchanged`` makes what there is to be of what there is."""
        with self._lock:
            users = self._users.get((kind, name), 0)
            if not users:
                original = kind.__dict__[name]
                stand_in = exchanged(original)
                self._kept[kind, name] = original, stand_in
                setattr(kind, name, stand_in)
            self._users[kind, name] = users + 1

    def end(self, kind: type, name: str) -> None:
        """Somebody else may have put their own in its place meanwhile, which passes calls on."""
        with self._lock:
            self._users[kind, name] -= 1
            if not self._users[kind, name]:
                original, stand_in = self._kept.pop((kind, name))
                if kind.__dict__.get(name) is stand_in:
                    setattr(kind, name, original)


_exchange = Exchange()
_joining = threading.Lock()


def _attach(ear: Ear[Any], *, joins: bool) -> None:
    global _attached
    with _joining:
        others = tuple(other for other in _attached if other is not ear)
        _attached = (*others, ear) if joins else others


def _forward_owners(modules: Iterable[nn.Module]) -> Iterator[type]:
    """The classes that define ``forward`` of ``modules``, in Python."""
    kinds = {owner for kind in {type(module) for module in modules} for owner in kind.__mro__}
    for owner in kinds - {nn.Module}:
        if isinstance(owner.__dict__.get("forward"), types.FunctionType | _Forward):
            yield owner


class Listening:
    """Whatever has to be another while ``modules`` are listened to, as often as it is needed."""

    def __init__(self, modules: Collection[nn.Module]) -> None:
        self._places: list[tuple[type, str, Callable[[Any], Any]]] = [
            (nn.Module, internals.CALL, _calls),
            (threading.Thread, "start", _starts),
            *((owner, "forward", _Forward) for owner in _forward_owners(modules)),
        ]
        if any(map(internals.is_compiled_in_place, modules)):
            self._places.append((nn.Module, "__call__", _compiled_calls))

    @contextmanager
    def captured(self, ear: Ear[Any]) -> Iterator[None]:
        """``ear``, and no other, hears this thread."""
        who = _here.who
        before = _captures.get(who)
        with self._exchanged():
            _captures[who] = ear
            try:
                yield
            finally:
                if before is None:
                    del _captures[who]
                else:
                    _captures[who] = before

    @contextmanager
    def attached(self, ear: Ear[Any]) -> Iterator[None]:
        """``ear`` hears all threads, but for what is captured in one."""
        with self._exchanged():
            _attach(ear, joins=True)
            try:
                yield
            finally:
                _attach(ear, joins=False)

    @contextmanager
    def _exchanged(self) -> Iterator[None]:
        done = 0
        try:
            for place in self._places:
                _exchange.begin(*place)
                done += 1
            yield
        finally:
            for kind, name, _ in self._places[:done]:
                _exchange.end(kind, name)
