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


class Replacement:
    """Something in the place of ``module.forward``, on the instance."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.before: Any = _ABSENT
        self.forward: Callable[..., Any] = module.forward
        self.now: Any = None

    def make(self) -> Callable[..., Any]:
        raise NotImplementedError

    def install(self) -> None:
        own = self.module.__dict__
        self.before = own.get("forward", _ABSENT)
        self.forward = self.module.forward
        own["forward"] = self.now = self.make()

    def remove(self) -> None:
        own, now, self.now = self.module.__dict__, self.now, None
        if own.get("forward") is not now:
            return  # someone wrapped it in turn; what they kept passes calls through
        if self.before is _ABSENT:
            del own["forward"]
        else:
            own["forward"] = self.before


class Shortcut(Replacement):
    """What the listener itself makes of ``forward``; for passes, during which nobody copies."""

    def __init__(self, module: nn.Module, wrap: Wrap) -> None:
        super().__init__(module)
        self.wrap = wrap

    def make(self) -> Callable[..., Any]:
        return self.wrap(self.forward)


class Forward(Replacement):
    """Stands in for ``module.forward``. Deep copies and pickles of the module get its own."""

    def __init__(self, listener: Listener, failures: bool) -> None:
        super().__init__(listener.module)
        self.enter, self.leave, self.failures = listener.enter, listener.leave, failures

    def make(self) -> Callable[..., Any]:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.now is None or is_compiling():
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


def _replacement(listener: Listener, failures: bool) -> Replacement:
    if listener.wrap is None:
        return Forward(listener, failures)
    return Shortcut(listener.module, listener.wrap)


def _must_hook(module: nn.Module) -> bool:
    own = module.__dict__
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"]
    return bool(hooks) or isinstance(module, torch.jit.ScriptModule)


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
        self.wrappers = [
            (_replacement(listener, public), Hooks(listener, public), listener.module in fused)
            for listener in listeners
        ]
        self.installed: list[Replacement | Hooks] = []

    def __enter__(self) -> Self:
        everywhere: bool = self.public or _has_any_global_hook()  # type: ignore[no-untyped-call]
        try:
            for forward, hooks, fused in self.wrappers:
                hooked = (everywhere and not fused) or _must_hook(forward.module)
                way: Replacement | Hooks = hooks if hooked else forward
                way.install()
                self.installed.append(way)
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
