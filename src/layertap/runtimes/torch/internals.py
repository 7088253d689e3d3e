"""Private members of PyTorch that the runtime needs, each tried when it is loaded.

Where one is gone or does something else, a slower or poorer public way takes its place, and
:func:`report` says so, which goes into the provenance of every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as nn_module
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = [
    "CALL",
    "TorchDispatchMode",
    "WeakTensorKeyDictionary",
    "children",
    "has_hooks",
    "has_pre_hooks",
    "held_tensors",
    "in_backward",
    "is_compiled_in_place",
    "is_traceable_wrapper_subclass",
    "is_transformed",
    "original",
    "report",
    "tree_leaves",
    "tree_map",
    "written_arguments",
]  # fmt: skip

_report: dict[str, str] = {}


def report() -> Mapping[str, str]:
    """What did not pass its test, with what is done instead; empty when all is well."""
    return dict(_report)


def _tried(name: str, test: Callable[[], bool], otherwise: str) -> bool:
    """Whether ``test`` of the private member ``name`` passes; if not, ``otherwise`` is noted."""
    try:
        passed = test()
    except Exception:  # whatever a member that changed raises, it is not what it was
        passed = False
    if not passed:
        _report[name] = otherwise
    return passed


def _goes_through_call_impl() -> bool:
    seen: list[object] = []

    class Probe(nn.Module):
        def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(self)
            return super()._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]

        def forward(self, x: int) -> int:
            return x + 1

    probe = Probe()
    return probe(1) == 2 and seen == [probe] and "_call_impl" in nn.Module.__dict__


CALL = (
    "_call_impl"
    if _tried("nn.Module._call_impl", _goes_through_call_impl, "nn.Module.__call__ is exchanged")
    else "__call__"
)
"""The function of ``nn.Module`` that every call goes through. ``__call__`` is the public one, but
to exchange it costs a look at every class of modules there is."""


def is_compiled_in_place(module: nn.Module) -> bool:
    """Whether ``module.compile()`` was called."""
    return getattr(module, "_compiled_call_impl", None) is not None


def _knows_hooks() -> bool:
    module = nn.Identity()
    before = bool(module._forward_pre_hooks or nn_module._global_forward_pre_hooks)
    handle = module.register_forward_pre_hook(lambda *_: None)
    during = bool(module._forward_pre_hooks)
    handle.remove()
    return during and not before and not module._forward_pre_hooks


_HOOKS_KNOWN = _tried(
    "nn.Module._forward_pre_hooks", _knows_hooks, "arguments are read behind all hooks"
)


def has_pre_hooks(module: nn.Module) -> bool:
    """Whether hooks may change the arguments of a call of ``module``."""
    if not _HOOKS_KNOWN:
        return True
    return bool(
        module._forward_pre_hooks
        or nn_module._global_forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of ``module`` is more than one of its class's ``forward``."""
    own = module.__dict__
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    everywhere = (
        nn_module._global_forward_hooks,
        nn_module._global_forward_pre_hooks,
        nn_module._global_backward_hooks,
        nn_module._global_backward_pre_hooks,
    )
    return "forward" in own or any(own.get(kind) for kind in kinds) or any(everywhere)


def _knows_wrapped() -> bool:
    plain = torch.zeros(2)
    wrapped: list[bool] = []

    def look(x: torch.Tensor) -> torch.Tensor:
        wrapped.append(bool(torch._C._functorch.is_functorch_wrapped_tensor(x)))
        return x

    torch.vmap(look)(plain)
    return wrapped == [True] and not torch._C._functorch.is_functorch_wrapped_tensor(plain)


is_transformed: Callable[[torch.Tensor], bool] = (
    torch._C._functorch.is_functorch_wrapped_tensor
    if _tried(
        "torch._C._functorch.is_functorch_wrapped_tensor",
        _knows_wrapped,
        "values inside torch.func transforms may end a call with PyTorch's own error",
    )
    else lambda _: False
)
"""Whether a tensor is one of ``torch.vmap``, ``torch.func.grad`` or the like, whose value is not a
single array."""


def _knows_backward() -> bool:
    seen: list[int] = []

    class Probe(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
            seen.append(torch._C._current_graph_task_id())
            return gradient

    with torch.enable_grad(), torch.inference_mode(False):
        x = torch.zeros(1, requires_grad=True)
        torch.autograd.grad(Probe.apply(x).sum(), x)  # type: ignore[no-untyped-call]
    return seen[0] != -1 and torch._C._current_graph_task_id() == -1


_BACKWARD_KNOWN = _tried(
    "torch._C._current_graph_task_id",
    _knows_backward,
    "what gradient checkpointing computes anew replaces the values of the forward pass",
)


def in_backward() -> bool:
    """Whether this thread is in a backward pass, where a checkpoint computes its part anew."""
    return _BACKWARD_KNOWN and torch._C._current_graph_task_id() != -1


def children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that ``module`` holds itself, under each of their names."""
    if not _CHILDREN_KNOWN:
        yield from module.named_children()
        return
    for name, child in module._modules.items():
        if child is not None:
            yield name, child


def _knows_children() -> bool:
    twice = nn.Identity()
    module = nn.Sequential(twice, twice)
    return list(module._modules.items()) == [("0", twice), ("1", twice)]


_CHILDREN_KNOWN = _tried(
    "nn.Module._modules", _knows_children, "a module that another holds twice has one name"
)


def original(module: nn.Module) -> nn.Module | None:
    """The module that ``torch.compile`` was given to make ``module``; None if it did not."""
    inner = dict(children(module)).get("_orig_mod")
    return inner if type(module).__name__ == "OptimizedModule" else None


def held_tensors(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    """The parameters and buffers of ``module`` itself: who holds them, under which name. Those of
    TorchScript cannot be exchanged."""
    if isinstance(module, torch.jit.ScriptModule):
        for named in (module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
            yield from (({name: tensor}, name, tensor) for name, tensor in named)
        return
    for kind in ("_parameters", "_buffers"):
        held: dict[str, Any] = module.__dict__.get(kind) or {}
        for name, tensor in held.items():
            if tensor is not None:
                yield held, name, tensor


def _knows_held() -> bool:
    module = nn.BatchNorm1d(1)
    names = {name for _, name, _ in held_tensors(module)}
    return names == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


_tried("nn.Module._parameters", _knows_held, "parameters and buffers are not put back")


def written_arguments(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments that an operation of PyTorch's writes to, as its schema says."""
    return [
        args[i] if i < len(args) else kwargs.get(argument.name)
        for i, argument in enumerate(operation._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _knows_schemas() -> bool:
    x, y = torch.zeros(1), torch.ones(1)
    pure = written_arguments(torch.ops.aten.add.Tensor, (x, y), {})
    written = written_arguments(torch.ops.aten.add_.Tensor, (x, y), {})
    return not pure and len(written) == 1 and written[0] is x


_tried("OpOverload._schema", _knows_schemas, "operations that write are not followed")
