"""PyTorch's operations, as they are dispatched, as steps of a trail: which keep samples in their
order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from layertap.core.following import Key, Step, Trail

_PLAIN = frozenset(
    """
    _adaptive_avg_pool2d _log_softmax _native_batch_norm_legit_no_training
    _scaled_dot_product_flash_attention_for_cpu _softmax _to_copy abs acos acosh add addmm alias
    all amax amin any arange argmax argmin as_tensor asin asinh atan atan2 atanh avg_pool2d
    avg_pool3d baddbmm bitwise_and bitwise_not bitwise_or bitwise_xor bmm cat ceil celu clamp
    clamp_max clamp_min clone constant_pad_nd contiguous convolution copysign cos cosh
    cudnn_batch_norm cummax cummin cumprod cumsum detach div elu empty eq erf erfc erfinv exp exp2
    expand expm1 eye fill floor floor_divide fmod full full_like ge gelu glu grid_sampler_2d gt
    hardsigmoid hardswish hardtanh isfinite isinf isnan le leaky_relu lerp lift_fresh
    lift_fresh_copy linspace log log10 log1p log2 logical_and logical_not logical_or logical_xor
    logsumexp lt masked_fill matmul max max_pool2d_with_indices max_pool3d_with_indices maximum
    mean min minimum mm mul mv nan_to_num narrow native_batch_norm native_group_norm
    native_layer_norm ne neg new_empty new_full new_ones new_zeros ones ones_like permute
    pixel_shuffle pow prod reciprocal reflection_pad1d reflection_pad2d relu remainder repeat
    replication_pad2d round rsqrt scalar_tensor select sgn sigmoid sign silu sin sinh slice
    softplus split split_with_sizes sqrt square stack std sub sum t tan tanh topk transpose tril
    triu trunc unbind unfold upsample_bicubic2d upsample_bilinear2d upsample_nearest2d var
    var_mean where zeros zeros_like
    """.split()  # noqa: SIM905
)
_RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias"})
_LOOKUPS = frozenset({"embedding", "index", "index_select"})
_KNOWN = _PLAIN | _RESHAPES | _LOOKUPS | {"flip"}


class Dispatched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the operations that are dispatched while it is entered."""

    def __init__(self, inputs: dict[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trail = Trail({name: tuple(one.shape) for name, one in inputs.items()})
        self.written = False
        """Whether something was written in place that has other names too: then the trail tells
        nothing."""
        self._keys: dict[int, Key] = {}
        self._alive: list[Any] = []
        self._sharing: dict[int, set[int]] = {}
        for name, one in inputs.items():
            self._call(one, name)

    def key(self, tensor: Any) -> Key | None:
        """What stands for a tensor; None for one that nothing is known of."""
        return self._keys.get(id(tensor))

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        result = function(*args, **(kwargs or {}))
        made = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        name = function.name().rpartition("::")[2].partition(".")[0]
        if function._schema.is_mutable:
            # What is written has a new value, and so has whatever shares its memory.
            own = name.endswith("_") and name[:-1] in _PLAIN and len(made) == 1
            self.written |= not own or len(self._sharing.get(_memory(made[0]), ())) > 1
            name = name.removesuffix("_")
        if made:
            inputs = tuple(map(self._known, given))
            outputs = tuple((self._new(one), tuple(one.shape)) for one in made)
            self.trail.steps.append(_step(name, inputs, outputs, given, args))
        return result

    def _known(self, tensor: torch.Tensor) -> Key:
        """A tensor that nothing here has made is a weight or a constant."""
        if id(tensor) not in self._keys:
            key = self._new(tensor)
            self.trail.steps.append(Step("constant", (), ((key, tuple(tensor.shape)),)))
        return self._keys[id(tensor)]

    def _new(self, tensor: torch.Tensor) -> Key:
        return self._call(tensor, len(self._alive))

    def _call(self, tensor: torch.Tensor, key: Key) -> Key:
        self._alive.append(tensor)
        self._keys[id(tensor)] = key
        self._sharing.setdefault(_memory(tensor), set()).add(id(tensor))
        return key


def _memory(tensor: torch.Tensor) -> int:
    return id(tensor) if tensor.layout is not torch.strided else tensor.untyped_storage()._cdata


def _step(
    name: str,
    inputs: tuple[Key, ...],
    outputs: tuple[Any, ...],
    given: Sequence[torch.Tensor],
    args: Any,
) -> Step:
    if name not in _KNOWN:
        return Step(name, inputs, outputs, None)
    if name in _RESHAPES:
        return Step(name, inputs, outputs, kind="reshape")
    if name in _LOOKUPS:
        return Step(name, inputs, outputs, kind="lookup")
    upsets: frozenset[int] = frozenset()
    if name == "flip":
        upsets = frozenset(axis % given[0].ndim for axis in args[1])
    elif name == "topk":
        upsets = frozenset(range(given[0].ndim))
    return Step(name, inputs, outputs, upsets)
