"""Which memory a computation writes to, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, notes for each storage when an operation last wrote to it.

    It goes by the operations' schemas, so it sees writes that leave the values as they were, or
    that version counters miss, as those through ``.data``. ``clock`` counts operations.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.clock = 0
        self._last: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        self.clock += 1
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[i] if i < len(args) else given.get(argument.name)
                for tensor in tree_leaves(value):
                    self._last[_storage(tensor)] = self.clock
        return func(*args, **given)

    def since(self, tensor: torch.Tensor, moment: int) -> bool:
        """Whether the memory of ``tensor`` was written to after ``moment``."""
        return self._last.get(_storage(tensor), -1) > moment


def _storage(tensor: Any) -> int:
    """The identity of a tensor's storage, as long as that lives; 0 where there is none."""
    if not isinstance(tensor, torch.Tensor):
        return 0
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return 0
