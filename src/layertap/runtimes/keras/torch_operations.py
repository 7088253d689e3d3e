"""The single operations of a model on PyTorch: every functional call, by the layer that made it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from layertap.runtimes.keras.naming import leaves, output_suffix
from layertap.runtimes.keras.recorder import Frame, Recorder
from layertap.runtimes.keras.user_lines import here, user_line


class FunctionCalls(TorchFunctionMode):
    """Tells ``recorder`` of each function of PyTorch that computes a tensor from tensors, while
    this mode is entered. ``sources``: look up the lines that call them."""

    def __init__(self, recorder: Recorder, *, sources: bool) -> None:
        super().__init__()
        self._recorder, self._sources = recorder, sources
        self._muted = False

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        frame = None if self._muted else self._recorder.frame
        if frame is not None:
            self._tell(frame, function, (args, kwargs or {}), result)
        return result

    def _tell(self, frame: Frame, function: Any, given: Any, result: Any) -> None:
        name = getattr(function, "__name__", "").strip("_")
        tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, torch.Tensor)]
        if not tensors or name in ("", "get", "set"):  # attributes of a tensor
            return
        in_place = getattr(function, "__name__", "").endswith("_")
        for path, leaf in leaves(result):
            old = any(leaf is tensor for tensor in tensors)
            if not isinstance(leaf, torch.Tensor) or (old and not in_place):
                continue
            suffix = f"{'/' if frame.name else ''}{name}{output_suffix(path)}"
            source = user_line(here()) if self._sources else ""
            self._recorder.operation(frame, suffix, name, leaf, tensors, source)

    def turn(self) -> None: ...

    def enter(self, frame: Frame) -> None: ...

    def leave(self, frame: Frame) -> None: ...

    @contextmanager
    def muting(self, on: bool) -> Iterator[None]:
        before, self._muted = self._muted, on
        try:
            yield
        finally:
            self._muted = before
