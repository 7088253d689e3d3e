"""Tensors as NumPy arrays, and why some cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from layertap.core.dtypes import Array, numpy_dtype
from layertap.errors import FeedError, Untappable
from layertap.runtimes.torch.internals import is_traceable_wrapper_subclass, is_transformed

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
"""Integer types as wide as those that only ml_dtypes gives NumPy, by bytes per element."""


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.bfloat16`` as ``bfloat16``: the name that NumPy or ml_dtypes uses."""
    return str(dtype).removeprefix("torch.")


def why_untappable(tensor: torch.Tensor) -> str:
    """Why ``tensor`` has no faithful NumPy array; empty when it has one."""
    if is_transformed(tensor):
        return "it is inside of a transform of torch.func, such as vmap, and no single array"
    if tensor.is_quantized:
        return "it is a quantized tensor; tap what is dequantized from it"
    if tensor.is_nested:
        return "it is a nested tensor, whose rows differ in shape"
    if tensor.layout is not torch.strided:
        return f"its layout is {tensor.layout}, not a dense array"
    if numpy_dtype(dtype_name(tensor.dtype)) is None:
        return f"NumPy has no {dtype_name(tensor.dtype)}"
    wraps_others: bool = is_traceable_wrapper_subclass(tensor)
    if wraps_others:
        return f"it is a {type(tensor).__name__}, which has no single array of values"
    if tensor.is_meta:
        return "it is on the meta device, without values"
    return ""


def memory(tensor: torch.Tensor) -> int:
    """The identity of a tensor's memory while that lives; 0 where it has none of its own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


def snapshot(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of ``tensor`` as it is now, without gradients, in the host's memory."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    return tensor.clone() if tensor.is_cpu else tensor.to("cpu", copy=True)


def to_array(tensor: torch.Tensor) -> Array:
    """The values of ``tensor`` in its own dtype; shares its memory where that is possible.

    Raises Untappable where :func:`why_untappable` has a reason.
    """
    try:
        array: Array = tensor.numpy()
    except (TypeError, RuntimeError):
        return _to_array(tensor)
    return array


def _to_array(tensor: torch.Tensor) -> Array:
    reason = why_untappable(tensor)
    if reason:
        raise Untappable(f"a tensor cannot be read: {reason}", hint="leave this tap out")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if type(plain) is not torch.Tensor:
        plain = plain.as_subclass(torch.Tensor)
    dtype = numpy_dtype(dtype_name(plain.dtype))
    if dtype is not None and dtype.isbuiltin == 2:  # of ml_dtypes, which PyTorch does not know
        bits: Array = plain.contiguous().view(_INTEGERS[dtype.itemsize]).numpy()
        return bits.view(dtype)
    array: Array = plain.numpy()
    return array


def _copied(value: Array | np.generic) -> Array:
    """A copy in memory as PyTorch has it for its own tensors: where memory is aligned otherwise,
    kernels may take another way, and round otherwise."""
    dtype = value.dtype
    if dtype.hasobject or not dtype.itemsize:
        return np.array(value, order="C")  # nothing that PyTorch takes
    memory: Array = torch.empty(value.nbytes, dtype=torch.uint8, device="cpu").numpy()
    array: Array = memory.view(dtype).reshape(value.shape)
    array[...] = value
    return array


def to_tensor(value: Any, floating: torch.dtype | None, device: torch.device | None) -> Any:
    """A copy of an array or tensor on ``device``; anything else as it is.

    NumPy arrays of float64 become ``floating``: it is what NumPy makes of Python's numbers, and
    seldom what a network computes in. Raises FeedError for arrays that PyTorch has no type for.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to(device, copy=True)
    if not isinstance(value, np.ndarray | np.generic):
        return value
    array = _copied(value)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    tensor = _from_numpy(array)
    target = floating if tensor.dtype is torch.float64 else None
    if target is None and (device is None or device.type == "cpu"):
        return tensor
    return tensor.to(device, target)


def _from_numpy(array: Array) -> torch.Tensor:
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        dtype = getattr(torch, array.dtype.name, None)
        if isinstance(dtype, torch.dtype) and array.dtype.itemsize in _INTEGERS:
            bits = array.view(dtype_name(_INTEGERS[array.dtype.itemsize]))
            return torch.from_numpy(bits).view(dtype)
        raise FeedError(
            f"PyTorch has no tensors of {array.dtype}", hint="pass numbers, or a torch tensor"
        ) from error
