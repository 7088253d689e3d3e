"""From a feed to the arguments of ``forward``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from layertap.core.feeds import Feed, InputSpec
from layertap.errors import FeedError
from layertap.runtimes.torch.arrays import to_tensor

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Arguments:
    """How ``forward`` of one module is called.

    ``inputs`` are its parameters. Values keep the caller's type: NumPy arrays and tensors are
    copied onto the module's device, so that nothing that ``forward`` does reaches the caller.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.parameters = tuple(_signature(module).parameters.values())
        self.inputs = tuple(_spec(parameter) for parameter in self.parameters)

    def bind(self, feed: Feed) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments that ``feed`` stands for. Raises FeedError."""
        left = dict(feed)
        device, floating = self._home()
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        skipped = ""
        for parameter in self.parameters:
            name = parameter.name
            if parameter.kind in _POSITIONAL and name in left and not skipped:
                args.append(left.pop(name))
            elif parameter.kind in _POSITIONAL and name not in left:
                skipped = skipped or name
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                further = _numbered(name, left)
                if skipped and further:
                    raise FeedError(
                        f"the input {skipped!r} is missing", hint=f"it comes before *{name}"
                    )
                args.extend(further)
            elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                raise FeedError(f"the input {skipped!r} is missing", hint=f"{name!r} follows it")
            elif name in left:
                kwargs[name] = left.pop(name)
        kwargs.update(left)
        return (
            tuple(_own(value, floating, device) for value in args),
            {name: _own(value, floating, device) for name, value in kwargs.items()},
        )

    def _home(self) -> tuple[torch.device | None, torch.dtype | None]:
        """Where the module computes, and its floating type."""
        device: torch.device | None = None
        for parameters in (self.module.parameters(), self.module.buffers()):
            for tensor in parameters:
                device = device or tensor.device
                if tensor.is_floating_point():
                    return device, tensor.dtype
        return device, None

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call under the names of ``inputs``, as feeds name them."""
        names = [p.name for p in self.parameters if p.kind in _POSITIONAL]
        named = dict(zip(names, args, strict=False))
        for parameter in self.parameters:
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                further = enumerate(args[len(names) :])
                named.update((f"{parameter.name}.{i}", value) for i, value in further)
        return {**named, **kwargs}


def _signature(module: nn.Module) -> inspect.Signature:
    try:
        return inspect.signature(module.forward)
    except (TypeError, ValueError):
        return inspect.Signature([inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)])


def _spec(parameter: inspect.Parameter) -> InputSpec:
    star = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else ""
    star = "**" if parameter.kind is inspect.Parameter.VAR_KEYWORD else star
    required = not star and parameter.default is inspect.Parameter.empty
    return InputSpec(star + parameter.name, required=required)


def _numbered(name: str, left: dict[str, Any]) -> list[Any]:
    """Takes ``name.0``, ``name.1``, ... out of ``left``."""
    values: list[Any] = []
    while f"{name}.{len(values)}" in left:
        values.append(left.pop(f"{name}.{len(values)}"))
    return values


def _own(value: Any, floating: torch.dtype | None, device: torch.device | None) -> Any:
    """``value`` with arrays as tensors of our own; what cannot be copied goes as it is."""
    if isinstance(value, tuple | list | dict):
        return tree_map(lambda leaf: _own_leaf(leaf, floating, device), value)
    return _own_leaf(value, floating, device)


def _own_leaf(value: Any, floating: torch.dtype | None, device: torch.device | None) -> Any:
    tensor = to_tensor(value, floating, device)
    if tensor is not value or value is None or isinstance(value, int | float | str | nn.Module):
        return tensor
    try:
        return copy.deepcopy(value)
    except (TypeError, RuntimeError, NotImplementedError):
        return value


def count_samples(feed: Feed) -> int:
    """Length of the batch axis: that of the first array in ``feed``; 1 without one."""
    shapes: Iterator[tuple[int, ...]] = (getattr(v, "shape", ()) for v in feed.values())
    return next((int(shape[0]) for shape in shapes if len(shape)), 1)
