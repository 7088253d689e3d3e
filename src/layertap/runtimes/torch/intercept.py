"""Listening to module calls, and leaving the modules as they were.

A module's ``forward`` is replaced on the instance while it is listened to. Compared with hooks
that costs a quarter, it also sees callers that go to ``forward`` directly, and it does not switch
off PyTorch's fused transformer path, which looks for hooks and would give other bits. Where a
module carries hooks of its user's, which may change what it takes or returns, a hook after the
last of them is the place where the final value can be seen.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling
from torch.nn.modules import module as module_hooks
from torch.utils.hooks import RemovableHandle

Enter = Callable[[tuple[Any, ...], dict[str, Any]], int]
"""Gets the arguments of a call, returns a number that :data:`Leave` gets back."""

Leave = Callable[[int, Any], None]
"""Gets the call's number and its output; None for a call that failed, if it is told of those."""

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Gets a module's ``forward`` and returns what to put in its place: a shorter way to the same."""

Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Calls a function with arguments and keyword arguments, and returns what it returned."""

_ABSENT = object()

_hooks_of = itemgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")

_GLOBAL_HOOKS = (
    module_hooks._global_backward_pre_hooks,
    module_hooks._global_backward_hooks,
    module_hooks._global_forward_hooks,
    module_hooks._global_forward_pre_hooks,
)
"""Hooks that run for every module, by kind."""


def is_plain(own: dict[str, Any]) -> bool:
    """Whether a call of the module with this ``__dict__`` is one of its class's ``forward``, and
    nothing else. So plainly, because a pass asks it."""
    return not (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
        or any(_GLOBAL_HOOKS)
    )


@dataclass(frozen=True, slots=True)
class Listener:
    """What wants to hear of the calls of ``module``."""

    module: nn.Module
    enter: Enter
    leave: Leave
    wrap: Wrap | None = None


class Forward:
    """Stands in for ``module.forward``. Deep copies and pickles of the module get its own."""

    def __init__(self, listener: Listener, failures: bool) -> None:
        self.module, self.failures = listener.module, failures
        self.enter, self.leave = listener.enter, listener.leave
        self.before: Any = _ABSENT
        self.forward: Callable[..., Any] = listener.module.forward
        self.listens = False

    def install(self) -> None:
        own = self.module.__dict__
        self.before = own.get("forward", _ABSENT)
        self.forward = self.module.forward
        own["forward"], self.listens = self, True

    def remove(self) -> None:
        own, self.listens = self.module.__dict__, False
        if own.get("forward") is not self:
            return  # someone wrapped it in turn; what they kept passes calls through
        if self.before is _ABSENT:
            del own["forward"]
        else:
            own["forward"] = self.before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.listens or is_compiling():
            return self.forward(*args, **kwargs)
        call = self.enter(args, kwargs)
        try:
            output = self.forward(*args, **kwargs)
        except BaseException:
            if self.failures:
                self.leave(call, None)
            raise
        self.leave(call, output)
        return output

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self.before is not _ABSENT:
            return copy.deepcopy(self.before, memo)
        return types.MethodType(type(self.module).forward, memo.get(id(self.module), self.module))

    def __reduce__(self) -> Any:
        return types.MethodType, (type(self.module).forward, self.module)


class Hooks:
    """A pair of hooks behind all others of a module."""

    def __init__(self, listener: Listener, failures: bool) -> None:
        self.module, self.failures = listener.module, failures
        self.enter, self.leave = listener.enter, listener.leave
        self.calls: list[int] = []
        self.handles: list[RemovableHandle] = []

    def install(self) -> None:
        before = self.module.register_forward_pre_hook(self._before, with_kwargs=True)
        self.handles.append(before)
        after = self.module.register_forward_hook(self._after, always_call=self.failures)
        self.handles.append(after)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not is_compiling():
            self.calls.append(self.enter(args, kwargs))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not is_compiling():
            self.leave(self.calls.pop(), output)

    def remove(self) -> None:
        while self.handles:
            self.handles.pop().remove()
        self.calls.clear()

    def __reduce__(self) -> Any:
        return _deaf, ()


def _deaf() -> Hooks:
    """What copies and pickles of a module that is listened to get: hooks that do nothing."""
    return Hooks(Listener(nn.Identity(), lambda *_: 0, lambda *_: None), False)


class Way:
    """The ways to listen to one module that fit whatever its user did to it."""

    def __init__(self, listener: Listener, failures: bool, fused: bool) -> None:
        self.forward, self.hooks = Forward(listener, failures), Hooks(listener, failures)
        self.fused = fused
        self.own = listener.module.__dict__
        self.scripted = isinstance(listener.module, torch.jit.ScriptModule)

    def choose(self, everywhere: bool) -> Forward | Hooks:
        """What to install where hooks for all modules exist, or are preferred, and where not."""
        hooked = self.scripted or any(_hooks_of(self.own))
        return self.hooks if hooked or (everywhere and not self.fused) else self.forward


def _shortcut(listener: Listener) -> tuple[Any, Callable[..., Any] | None]:
    """The ``forward`` of the module's class, and a listener's wrap of it, which takes its place in
    the shortest way to listen; None where that cannot be."""
    kind = type(listener.module)
    function = getattr(kind, "forward", None)
    scripted = isinstance(listener.module, torch.jit.ScriptModule)
    if listener.wrap is None or scripted or not isinstance(function, types.FunctionType):
        return function, None
    return function, listener.wrap(types.MethodType(function, listener.module))


Listened = tuple[dict[str, Any], Any, Any, Callable[..., Any] | None, Way]
"""A module's ``__dict__``, its class, the ``forward`` of that, the shortcut in its place if there
is one, and the other ways."""


class Stop(BaseException):
    """What a listener raises to end :meth:`Interception.around` early.

    Not an Exception, so that ``except Exception`` in a model does not take it for a failure. Where
    a model swallows it all the same, the call merely goes on to its end.
    """


class Interception:
    """Listens to modules, as often as it is asked to: between ``__enter__`` and ``__exit__``, or
    for one call.

    ``fused`` are modules that must not be hooked (see above) unless they have hooks already.
    With ``public`` hooks are used wherever possible: the user's own code runs meanwhile, and may
    copy modules in ways that carry an instance's ``forward`` along to another module. Listeners
    are told of calls that failed, too.
    """

    def __init__(
        self,
        listeners: Iterable[Listener],
        fused: Collection[nn.Module] = (),
        *,
        public: bool = False,
    ) -> None:
        self.public = public
        self.modules: list[Listened] = []
        for listener in listeners:
            module, (function, shortcut) = listener.module, _shortcut(listener)
            way = Way(listener, public, module in fused)
            self.modules.append((module.__dict__, type(module), function, shortcut, way))
        self.installed: list[Forward | Hooks] = []

    def __enter__(self) -> None:
        everywhere = self.public or any(_GLOBAL_HOOKS)
        try:
            for *_, way in self.modules:
                self._install(way, everywhere)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        """Leave every module as it was. Idempotent."""
        while self.installed:
            self.installed.pop().remove()

    def _install(self, way: Way, everywhere: bool) -> None:
        chosen = way.choose(everywhere)
        self.installed.append(chosen)
        chosen.install()

    def around(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call ``function`` and listen meanwhile. Returns its output, or None after Stop.

        What is done here for each module, each pass does: hence so plainly, and in one place.
        """
        modules, everywhere = self.modules, self.public or any(_GLOBAL_HOOKS)
        try:
            for own, kind, forward, shortcut, way in modules:
                if (
                    shortcut is None
                    or everywhere
                    or own["_forward_hooks"]
                    or own["_forward_pre_hooks"]
                    or own["_backward_hooks"]
                    or "forward" in own
                    or kind.forward is not forward
                ):
                    self._install(way, everywhere)
                else:
                    own["forward"] = shortcut
            return function(*args, **kwargs)
        except Stop:
            return None
        finally:
            for own, _, _, shortcut, _ in modules:
                found = own.pop("forward", None)
                if found is not None and found is not shortcut:  # ours of another kind, or theirs
                    own["forward"] = found
            if self.installed:
                self.__exit__()
