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
from typing import Any, Self

import torch
from torch import nn
from torch.compiler import is_compiling
from torch.nn.modules.module import _has_any_global_hook
from torch.utils.hooks import RemovableHandle

Enter = Callable[[tuple[Any, ...], dict[str, Any]], int]
"""Gets the arguments of a call, returns a number that :data:`Leave` gets back."""

Leave = Callable[[int, Any], None]
"""Gets the call's number and its output; None for a call that failed, if it is told of those."""

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Gets a module's ``forward`` and returns what to put in its place: a shorter way to the same."""

_ABSENT = object()


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
    """The ways to listen to one module; which of them fits is looked up at each pass.

    Most modules take the shortest: ``shortcut`` is the listener's wrap of the class's ``forward``,
    made once, and put into the module's ``__dict__`` (``own``) for the pass.
    """

    def __init__(self, listener: Listener, failures: bool, fused: bool) -> None:
        self.forward, self.hooks = Forward(listener, failures), Hooks(listener, failures)
        self.fused = fused
        self.own = listener.module.__dict__
        self.kind = type(listener.module)
        self.function: Any = getattr(self.kind, "forward", None)
        self.scripted = isinstance(listener.module, torch.jit.ScriptModule)
        self.shortcut = None
        if listener.wrap is not None and isinstance(self.function, types.FunctionType):
            self.shortcut = listener.wrap(types.MethodType(self.function, listener.module))

    def has_hooks(self) -> bool:
        own = self.own
        hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"]
        return bool(hooks) or self.scripted

    def is_short(self) -> bool:
        """Whether the shortcut is what a call of the module comes to, without hooks."""
        own = self.own
        return (
            self.shortcut is not None
            and "forward" not in own
            and not own["_forward_hooks"]
            and not own["_forward_pre_hooks"]
            and not own["_backward_hooks"]
            and getattr(self.kind, "forward", None) is self.function
        )


class Interception:
    """Listens to modules between ``__enter__`` and ``__exit__``, as often as it is entered.

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
        self.ways = [Way(listener, public, listener.module in fused) for listener in listeners]
        self.installed: list[Forward | Hooks] = []
        self.shortcuts: list[tuple[dict[str, Any], Any]] = []

    def __enter__(self) -> Self:
        everywhere: bool = self.public or _has_any_global_hook()  # type: ignore[no-untyped-call]
        try:
            for way in self.ways:
                if not everywhere and way.is_short():
                    way.own["forward"] = way.shortcut
                    self.shortcuts.append((way.own, way.shortcut))
                elif (everywhere and not way.fused) or way.has_hooks():
                    way.hooks.install()
                    self.installed.append(way.hooks)
                else:
                    way.forward.install()
                    self.installed.append(way.forward)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Leave every module as it was. Idempotent."""
        while self.installed:
            self.installed.pop().remove()
        for own, shortcut in self.shortcuts:
            if own.get("forward") is shortcut:
                del own["forward"]
        self.shortcuts.clear()
