"""The values of many small tensors, such as buffers, kept and compared in few steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from layertap.runtimes.torch.arrays import why_untappable


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors hold the same bits; False for layouts that cannot be compared."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    try:
        if torch.equal(a, b) and not (a.is_floating_point() or a.is_complex()):
            return True
        flat = (tensor.detach().reshape(-1).view(torch.uint8) for tensor in (a, b))
        return torch.equal(*flat)  # NaN equals no number, and -0 equals 0
    except (RuntimeError, NotImplementedError):
        return False


class Snapshot:
    """Copies of ``tensors``, those of one type and device in one piece of memory.

    Some writes pass the version of a tensor by: batch norm's of its running statistics, those
    through ``.data`` or NumPy. So the values are compared.
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self.groups: dict[object, list[torch.Tensor]] = {}
        self.single: list[tuple[torch.Tensor, torch.Tensor]] = []
        for tensor in tensors:
            if type(tensor) in (torch.Tensor, torch.nn.Parameter) and not why_untappable(tensor):
                self.groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
            else:
                self.single.append((tensor, tensor.detach().clone()))
        self.shapes = {key: [t.shape for t in group] for key, group in self.groups.items()}
        self.values = {key: _joined(group) for key, group in self.groups.items()}

    def restore(self) -> None:
        """Write back what is different."""
        for key, group in self.groups.items():
            shapes, values = self.shapes[key], self.values[key]
            same = [tensor.shape for tensor in group] == shapes
            if same and torch.equal(_joined(group), values):
                continue
            parts = torch.split(values, [shape.numel() for shape in shapes])
            for tensor, part, shape in zip(group, parts, shapes, strict=True):
                _write_back(tensor, part.reshape(shape))
        for tensor, copy in self.single:
            _write_back(tensor, copy)


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _write_back(tensor: torch.Tensor, values: torch.Tensor) -> None:
    if same_bits(tensor, values):
        return
    if tensor.shape != values.shape:
        tensor.data = torch.empty_like(values)
    tensor.detach().copy_(values)
