"""What happens in one call of a model: every layer output under its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras.src.backend.common.symbolic_scope import get_symbolic_scope

from layertap.core.graph import Kind
from layertap.runtimes.keras.naming import Ownership, is_node, leaves, output_suffix, unused

OUTPUT: Kind = "output"
"""Name of a model output that is no layer's output."""

Group = tuple[int, int]
"""A layer (by id) within one call of its parent (by serial number)."""


@dataclass
class Value:
    """One tensor that a layer (or the model) returned.

    ``base`` is the name without the number of the call. ``groups`` are the calls it was computed
    in, from the model down. ``operands`` are the names of the values it was computed from, as far
    as they are known.
    """

    name: str
    base: str
    op: str
    tensor: Any
    kind: Kind = "activation"
    groups: tuple[Group, ...] = ()
    operands: tuple[str, ...] = ()


@dataclass
class _Frame:
    layer: Any
    serial: int
    path: str
    name: str
    groups: tuple[Group, ...]
    operands: tuple[str, ...]


def is_value(leaf: Any) -> bool:
    """Whether a layer's output is a tensor with a value to come (no KerasTensor)."""
    return isinstance(leaf, np.ndarray) or bool(keras.ops.is_tensor(leaf))


class Recorder:
    """Names the values of each call of ``root`` and hands them to ``on_value`` as they appear.

    With ``operands`` it also finds out which value was computed from which; that keeps every
    tensor of the call alive. ``on_begin`` is called when the model is entered and ``on_end``
    when it has returned (True) or raised (False).
    """

    def __init__(
        self,
        root: Any,
        on_value: Callable[[Value], None],
        *,
        ownership: Ownership,
        reserved: Mapping[str, Any] | None = None,
        operands: bool = False,
        on_begin: Callable[[], None] = lambda: None,
        on_end: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.root, self.on_value, self.ownership = root, on_value, ownership
        self.reserved = dict(reserved or {})
        self.operands = operands
        self.on_begin, self.on_end = on_begin, on_end
        self._frames: list[_Frame | None] = []
        self._scope: Any = None
        self._reset()

    def _reset(self) -> None:
        self._serial = 0
        self._names: set[str] = set(self.reserved)
        self._calls: dict[str, int] = {}
        self._paths: dict[tuple[str, int], tuple[str, Any]] = {}
        self._forget_tensors()
        for name, tensor in self.reserved.items():
            self._produced(tensor, name)

    def _forget_tensors(self) -> None:
        self._producers: dict[int, list[str]] = {}
        self._alive: list[Any] = []

    def enter(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        parent = self._frames[-1] if self._frames else None
        if parent is None:
            self._frames.append(self._root_frame(layer) if layer is self.root else None)
            return
        if get_symbolic_scope() is not self._scope:
            self._frames.append(None)  # Keras tries a layer out to learn the shapes of its weights
            return
        if not (isinstance(layer, keras.Layer) or is_node(parent.layer, layer)):
            # An operation that a layer makes up while it is called, under a new name each time.
            self._frames.append(None)
            return
        self._serial += 1
        path = self._path(parent, layer)
        number = self._calls.get(path, 0)
        self._calls[path] = number + 1
        name = f"{path}@{number}" if number else path
        groups = (*parent.groups, (parent.serial, id(layer)))
        operands = self._known((args, kwargs)) if self.operands else ()
        self._frames.append(_Frame(layer, self._serial, path, name, groups, operands))

    def leave(self, outputs: Any) -> None:
        frame = self._frames.pop()
        if frame is None:
            return
        if frame.serial == 0:
            self._finish(outputs)
            self._forget_tensors()
            self.on_end(True)
            return
        for path, leaf in leaves(outputs):
            if is_value(leaf):
                suffix = output_suffix(path)
                name, base = self._name(frame.name + suffix), frame.path + suffix
                op = type(frame.layer).__name__
                self._produced(leaf, name)
                self.on_value(
                    Value(name, base, op, leaf, "activation", frame.groups, frame.operands)
                )

    def fail(self) -> None:
        frame = self._frames.pop()
        if frame is not None and frame.serial == 0:
            self._forget_tensors()
            self.on_end(False)

    def _root_frame(self, layer: Any) -> _Frame:
        self._reset()
        self._scope = get_symbolic_scope()
        self.on_begin()
        return _Frame(layer, 0, "", "", (), ())

    def _path(self, parent: _Frame, layer: Any) -> str:
        local = self.ownership.local_name(parent.layer, layer)
        wanted = f"{parent.path}/{local}" if parent.path else local
        key = (wanted, id(layer))
        if key not in self._paths:
            taken = {path for path, _ in self._paths.values()}
            self._paths[key] = (unused(wanted, taken), layer)
        return self._paths[key][0]

    def _name(self, wanted: str) -> str:
        name = unused(wanted, self._names)
        self._names.add(name)
        return name

    def _produced(self, tensor: Any, name: str) -> None:
        if self.operands:
            self._producers.setdefault(id(tensor), []).append(name)
            self._alive.append(tensor)

    def _known(self, arguments: Any) -> tuple[str, ...]:
        found = (self._producers.get(id(leaf)) for _, leaf in leaves(arguments))
        return tuple(dict.fromkeys(names[-1] for names in found if names))

    def _finish(self, outputs: Any) -> None:
        for path, leaf in leaves(outputs):
            if is_value(leaf):
                name = self._name(OUTPUT + output_suffix(path))
                known = self._producers.get(id(leaf), ())
                op = type(self.root).__name__
                self.on_value(Value(name, name, op, leaf, OUTPUT, (), tuple(known)))


@dataclass
class Recording:
    """The values of one call in order, with what makes some of them unreadable.

    ``reason`` tells why a tensor cannot leave the computation it was made in, empty if it can.
    """

    reason: Callable[[Any], str]
    values: list[Value] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, value: Value) -> None:
        self.values.append(value)
        if why := self.reason(value.tensor):
            self.reasons[value.name] = why

    def settled(self) -> list[tuple[Value, str]]:
        """The tap points of the call: values with the reason why they cannot be read.

        A layer's output that is a model output takes that kind, and the model's own name for it
        is dropped. Of a layer that is called in a loop only one entry stays: how often, and
        whether once more outside of the loop, is the backend's own business.
        """
        looped = {v.groups[-1]: self.reasons[v.name] for v in self.values if v.name in self.reasons}
        kept: list[tuple[Value, str]] = []
        seen: set[str] = set()
        for value in self._with_outputs():
            why = next((looped[g] for g in value.groups if g in looped), "")
            if why:
                if value.base in seen:
                    continue
                seen.add(value.base)
            kept.append((value, why))
        return kept

    def _with_outputs(self) -> list[Value]:
        own = {value.name: value for value in self.values if value.kind != OUTPUT}
        rest: list[Value] = []
        for value in self.values:
            if value.kind != OUTPUT:
                continue
            # The last layer that returned this very tensor: an identity comes after its source.
            makers = [own[n] for n in value.operands if n in own and own[n].kind != OUTPUT]
            if makers:
                makers[-1].kind = OUTPUT
            else:
                rest.append(value)
        return [*own.values(), *rest]
