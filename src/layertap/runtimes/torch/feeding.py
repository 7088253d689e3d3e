"""From a feed to the arguments of ``forward``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from layertap.core.feeds import Feed, InputSpec
from layertap.errors import FeedError
from layertap.runtimes.torch.arrays import to_tensor
from layertap.runtimes.torch.internals import tree_map

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Call(NamedTuple):
    """What a network is called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Arguments:
    """How ``forward`` of one module is called.

    ``inputs`` are its parameters. Arrays become tensors, and tensors are copied, on the module's
    device, so that nothing that ``forward`` does reaches the caller.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = tuple(_signature(module).parameters.values())
        self.inputs = tuple(_spec(parameter) for parameter in parameters)
        kinds = inspect.Parameter
        self.positional = [p.name for p in parameters if p.kind in _POSITIONAL]
        self.only = {p.name for p in parameters if p.kind is kinds.POSITIONAL_ONLY}
        self.further = next((p.name for p in parameters if p.kind is kinds.VAR_POSITIONAL), "")
        tensors = [*module.parameters(), *module.buffers()]
        floating = (tensor for tensor in tensors if tensor.is_floating_point())
        self.landmark = next(floating, tensors[0] if tensors else None)

    def bind(self, feed: Feed) -> Call:
        """The call that ``feed`` stands for. Raises FeedError."""
        left = {name: self._own(value) for name, value in feed.items()}
        args: list[Any] = []
        for name in self.positional:
            if name not in left:
                break
            args.append(left.pop(name))
        missing = self.positional[len(args) :]
        further = _numbered(self.further, left) if self.further else []
        late = [name for name in missing if name in self.only and name in left]
        if missing and (further or late):
            raise FeedError(
                f"the input {missing[0]!r} is missing",
                hint=f"it comes before {late[0] if late else '*' + self.further}",
            )
        return Call((*args, *further), left)

    def _own(self, value: Any) -> Any:
        if self.landmark is None:
            return _own(value, None, None)
        floating = self.landmark.dtype if self.landmark.is_floating_point() else None
        return _own(value, floating, self.landmark.device)

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call under the names of ``inputs``, as feeds name them."""
        named = dict(zip(self.positional, args, strict=False))
        further = enumerate(args[len(self.positional) :])
        named.update((f"{self.further}.{i}", value) for i, value in further)
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
    return InputSpec(star + parameter.name, required=required, nested="tuple")


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


def look(value: Any) -> object:
    """What of a feed decides which way a network takes, where that is not up to values: shapes and
    dtypes of arrays, and everything else."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return tuple(value.shape), value.dtype
    if isinstance(value, dict):
        return tuple([(key, look(item)) for key, item in value.items()])
    if isinstance(value, tuple | list):
        return tuple(map(look, value))
    return repr(value)
