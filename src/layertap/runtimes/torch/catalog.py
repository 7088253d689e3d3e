"""The modules of a network: their names, their aliases, and which of them can be listened to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from layertap.runtimes.torch import internals


@dataclass(frozen=True, slots=True)
class Slot:
    """One module under its first name; the root's name is empty."""

    index: int
    name: str
    module: nn.Module

    @property
    def op(self) -> str:
        return type(self.module).__name__


def unwrap(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` was given, or ``module`` itself."""
    while (inner := internals.original(module)) is not None:
        module = inner
    return module


def is_compiled(root: nn.Module) -> bool:
    """Whether ``root`` or a module inside runs through ``torch.compile``."""
    return any(
        internals.original(module) is not None
        or internals.is_compiled_in_place(module)
        or hasattr(module.forward, "_torchdynamo_orig_callable")
        for module in root.modules()
    )


def _has_forward(module: nn.Module) -> bool:
    unimplemented = getattr(type(module), "forward", None) is nn.Module.forward
    return "forward" in module.__dict__ or not unimplemented


class Catalog:
    """The modules under ``root`` that can be called, in the order of ``named_modules``.

    ``aliases`` maps further names of a module, or of a module inside it, to its first name.
    ``fused`` holds the modules whose values PyTorch's fused transformer path may skip.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = unwrap(root)
        self.slots: list[Slot] = []
        self.aliases: dict[str, str] = {}
        self.fused: set[nn.Module] = set()
        first: dict[int, str] = {}
        self._structure = list(_named(self.root, "", ()))
        for name, module in self._structure:
            known = first.setdefault(id(module), name)
            if known != name:
                self.aliases[name] = known
            elif _has_forward(module):
                self.slots.append(Slot(len(self.slots), name, module))
        for slot in self.slots:
            if isinstance(slot.module, nn.TransformerEncoderLayer):
                self.fused.update(slot.module.modules())

    def is_current(self) -> bool:
        """Whether the network still holds the modules that were found, under the same names."""
        return self._structure == list(_named(self.root, "", ()))

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Parameters and buffers under their first names."""
        seen: set[int] = set()
        for name, tensor in self._named_tensors():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor

    def tensor(self, name: str) -> torch.Tensor:
        """The present parameter or buffer of that name, without a walk through all of them. Raises
        KeyError."""
        module, rest = self.root, name
        while "." in rest and not isinstance(module, torch.jit.ScriptModule):
            part, _, rest = rest.partition(".")
            child = next((c for key, c in internals.children(module) if key == part), None)
            if child is None:
                raise KeyError(name)
            module = unwrap(child)
        for key, tensor in _held(module, ""):
            if key == rest:
                return tensor
        raise KeyError(name)

    def tensor_aliases(self) -> Iterator[tuple[str, str]]:
        """Further names of tied parameters and buffers, each with the first one."""
        first: dict[int, str] = {}
        for name, tensor in self._named_tensors():
            if first.setdefault(id(tensor), name) != name:
                yield name, first[id(tensor)]

    def _named_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, module in _named(self.root, "", ()):
            yield from _held(module, name)


def _held(module: nn.Module, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers of a module itself, and of all that is inside TorchScript."""
    inside = isinstance(module, torch.jit.ScriptModule)
    for kind in (nn.Module.named_parameters, nn.Module.named_buffers):
        yield from kind(module, name, recurse=inside, remove_duplicate=False)


def _named(
    module: nn.Module, name: str, above: tuple[nn.Module, ...]
) -> Iterator[tuple[str, nn.Module]]:
    """All names of all modules. What runs inside TorchScript cannot be listened to, so it ends
    the walk, as does a module that holds itself."""
    yield name, module
    if isinstance(module, torch.jit.ScriptModule):
        return
    for key, child in internals.children(module):
        if child not in above:
            full = f"{name}.{key}" if name else key
            yield from _named(unwrap(child), full, (*above, module))
