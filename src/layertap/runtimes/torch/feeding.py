"""From a feed to the arguments of ``forward``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from sys import getrefcount
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from layertap.core.feeds import Feed, InputSpec
from layertap.errors import FeedError
from layertap.runtimes.torch.arrays import storage_use_count, to_tensor

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_AS_THEY_ARE = frozenset(
    map(np.dtype, ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32"))
)
"""Types of arrays of which a tensor is made without conversion."""


class Call(NamedTuple):
    """What a network is called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    form: object
    """What :func:`look` says of the feed."""


class Staged:
    """A call whose arguments are tensors made of arrays, to be made again with other values.

    Memory that is still in the cache, and tensors that exist, cost a fraction of new ones. The
    storages are held so that their addresses stay theirs, also if a tensor is given another one.
    """

    def __init__(self, feed: Feed, owned: Mapping[str, torch.Tensor], call: Call) -> None:
        self.call = call
        self.storages = [tensor.untyped_storage() for tensor in owned.values()]
        self.parts = [
            (name, feed[name].shape, feed[name].dtype, tensor, tensor.numpy(), storage._cdata)
            for (name, tensor), storage in zip(owned.items(), self.storages, strict=True)
        ]


_OWN_REFERENCES = 4
"""References to a staged tensor: from the call, the part and a local variable, while
``getrefcount`` looks."""

_OWN_STORAGE = 3
"""References to the storage of a staged tensor: that one's, the array's and the Python object's."""


class Arguments:
    """How ``forward`` of one module is called.

    ``inputs`` are its parameters. Values keep the caller's type: NumPy arrays and tensors are
    copied onto the module's device, so that nothing that ``forward`` does reaches the caller.
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
        self._staged: Staged | None = None

    def bind(self, feed: Feed) -> Call:
        """The call that ``feed`` stands for. Raises FeedError."""
        owned = {name: self._own(value) for name, value in feed.items()}
        call = Call(*self._arranged(owned), look(feed))
        again = all(map(_is_as_it_was, feed.values(), owned.values()))
        self._staged = Staged(feed, owned, call) if again else None
        return call

    def again(self, feed: Feed) -> Call | None:
        """The latest call that was bound with the values of ``feed`` in its tensors. None if these
        have another form, or somebody still has a tensor, or its memory, or did more to it than to
        look: then nothing is changed."""
        staged = self._staged
        if staged is None or len(feed) != len(staged.parts):
            return None
        for name, shape, dtype, tensor, _, address in staged.parts:
            value = feed.get(name)
            if (
                type(value) is not np.ndarray
                or value.shape != shape
                or value.dtype != dtype
                or getrefcount(tensor) > _OWN_REFERENCES
                or tensor._use_count() > 1  # type: ignore[attr-defined]
                or storage_use_count(address) != _OWN_STORAGE
                or tensor._version
                or tensor.requires_grad
                or tensor.__dict__
            ):
                return None
        for name, _, _, _, array, _ in staged.parts:
            array[...] = feed[name]
        return staged.call

    def _arranged(self, owned: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        left = dict(owned)
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
        return (*args, *further), left

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


def _is_as_it_was(value: Any, tensor: Any) -> bool:
    """Whether ``tensor`` holds the elements of an array without any conversion."""
    return (
        type(value) is np.ndarray
        and type(tensor) is torch.Tensor
        and value.dtype in _AS_THEY_ARE
        and tensor.is_cpu
        and not tensor.is_inference()
        and tensor.numpy().dtype == value.dtype
    )


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
    if type(value) is np.ndarray:
        return to_tensor(value, floating, device)
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


def is_square(feed: Feed, samples: int) -> bool:
    """Whether an axis of an input other than the first is as long as a batch of several."""
    shapes = (tuple(getattr(leaf, "shape", ())) for leaf in tree_leaves(dict(feed)))
    return samples > 1 and any(samples in shape[1:] for shape in shapes)


def with_one_more(feed: Feed, samples: int) -> Feed:
    """A feed with the shapes of ``feed`` for a batch of one more; its values mean nothing."""

    def grown(leaf: Any) -> Any:
        counts = isinstance(leaf, np.ndarray | torch.Tensor) and leaf.shape[:1] == (samples,)
        return leaf[[0] * (samples + 1)] if counts else leaf

    grown_feed: Feed = tree_map(grown, dict(feed))
    return grown_feed


def look(value: Any) -> object:
    """What of a feed decides which way a network takes, where that is not up to values: shapes and
    dtypes of arrays, and everything else."""
    if type(value) is np.ndarray:
        return value.shape, value.dtype
    if isinstance(value, dict):
        return tuple([(key, look(item)) for key, item in value.items()])
    if isinstance(value, tuple | list):
        return tuple(map(look, value))
    if isinstance(value, np.ndarray | torch.Tensor):
        return tuple(value.shape), value.dtype
    return repr(value)
