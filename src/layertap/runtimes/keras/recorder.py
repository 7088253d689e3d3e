"""What happens in one call of a model: every layer output under its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
from keras.src.backend.common.symbolic_scope import get_symbolic_scope

from layertap.core.graph import Kind
from layertap.core.names import unused
from layertap.runtimes.keras.naming import Ownership, is_node, leaves, output_suffix
from layertap.runtimes.keras.recurrent import state_names

OUTPUT: Kind = "output"
"""Name of a model output that is no layer's output."""

Group = tuple[int, int]
"""A layer (by id) within one call of its parent (by serial number)."""


@dataclass
class Value:
    """One tensor that a layer (or the model) returned, or that was computed inside of it.

    ``base`` is the name without the number of the call. ``groups`` are the calls it was computed
    in, from the model down. ``operands`` are the names of the values it was computed from, as far
    as they are known. ``inside``: it is no layer's output but an operation's, a state, or recorded.
    ``source`` is the line of the user's code that computes it; ``reason`` why it cannot be read.
    ``loops`` are the lengths of the loops around it, outermost first, None where unknown: it has
    one value per iteration.
    """

    name: str
    base: str
    op: str
    tensor: Any
    kind: Kind = "activation"
    groups: tuple[Group, ...] = ()
    operands: tuple[str, ...] = ()
    inside: bool = False
    source: str = ""
    reason: str = ""
    loops: tuple[int | None, ...] = ()


@dataclass
class Frame:
    """One call of a layer. ``timed``: it calls another layer in a Python loop over time, whose
    states at each of these steps, by name, are ``steps`` if that layer is recurrent."""

    layer: Any
    serial: int
    path: str
    name: str
    groups: tuple[Group, ...]
    operands: tuple[str, ...]
    timed: bool = False
    steps: list[dict[str, Any]] = field(default_factory=list)


class Watcher(Protocol):
    """Finds the single operations of a call, as a backend runs or traces them."""

    def turn(self) -> None:
        """What has been computed since the last turn belongs to the present frame."""
        ...

    def enter(self, frame: Frame) -> None: ...

    def leave(self, frame: Frame) -> None: ...

    def muting(self, on: bool) -> AbstractContextManager[None]:
        """While what is computed is nobody's; off again in there."""
        ...


def is_value(leaf: Any) -> bool:
    """Whether a layer's output is a tensor with a value to come (no KerasTensor)."""
    return isinstance(leaf, np.ndarray) or bool(keras.ops.is_tensor(leaf))


class Recorder:
    """Names the values of each call of ``root`` and hands them to ``on_value`` as they appear.

    ``wants`` tells by name what costs something to get, states after each step. With ``operands``
    it also finds out which value was computed from which; that keeps every tensor of the call
    alive. ``on_begin`` is called when the model is entered and ``on_end`` when it has returned
    (True) or raised (False); ``on_loop`` makes the context for a method, such as ``predict``, that
    runs it.
    """

    def __init__(
        self,
        root: Any,
        on_value: Callable[[Value], None],
        *,
        ownership: Ownership,
        reserved: Mapping[str, Any] | None = None,
        wants: Callable[[str], bool] = lambda _: True,
        operands: bool = False,
        is_value: Callable[[Any], bool] = is_value,
        on_begin: Callable[[], None] = lambda: None,
        on_end: Callable[[bool], None] = lambda _: None,
        on_loop: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> None:
        self.root, self.on_value, self.ownership = root, on_value, ownership
        self.reserved = dict(reserved or {})
        self.wants, self.operands, self.is_value = wants, operands, is_value
        self.on_begin, self.on_end, self.on_loop = on_begin, on_end, on_loop
        self.watcher: Watcher | None = None
        self._frames: list[Frame | None] = []
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
        if self.watcher is not None and parent is not None:
            self.watcher.turn()
        frame = self._frame(parent, layer, args, kwargs)
        self._frames.append(frame)
        if self.watcher is not None and frame is not None:
            self.watcher.enter(frame)

    def _frame(
        self, parent: Frame | None, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Frame | None:
        if parent is None:
            at_root = not self._frames and layer is self.root
            return self._root_frame(layer) if at_root else None
        if get_symbolic_scope() is not self._scope:
            return None  # Keras tries a layer out to learn the shapes of its weights
        if not (isinstance(layer, keras.Layer) or is_node(parent.layer, layer)):
            # An operation that a layer makes up while it is called, under a new name each time.
            return None
        self._serial += 1
        path = self._path(parent, layer)
        number = self._calls.get(path, 0)
        self._calls[path] = number + 1
        name = f"{path}@{number}" if number else path
        groups = (*parent.groups, (parent.serial, id(layer)))
        operands = self.known((args, kwargs))
        return Frame(layer, self._serial, path, name, groups, operands, _is_timed(layer, args))

    def leave(self, outputs: Any) -> None:
        frame = self._frames[-1]
        if frame is not None:
            self._turn_and_leave(frame)
        self._frames.pop()
        if frame is None:
            return
        if frame.steps:
            self._emit_timed(frame)
        if frame.serial == 0:
            self._finish(outputs)
            self._forget_tensors()
            self.on_end(True)
            return
        for path, leaf in leaves(outputs):
            if self.is_value(leaf):
                suffix = output_suffix(path)
                name, base = self.unused(frame.name + suffix), frame.path + suffix
                op = type(frame.layer).__name__
                self._produced(leaf, name)
                self.on_value(
                    Value(name, base, op, leaf, "activation", frame.groups, frame.operands)
                )

    def fail(self) -> None:
        frame = self._frames[-1]
        if frame is not None:
            self._turn_and_leave(frame)
        self._frames.pop()
        if frame is not None and frame.serial == 0:
            self._forget_tensors()
            self.on_end(False)

    def record(self, name: str, value: Any) -> None:
        """Take in what the user's code records under ``name``."""
        frame = self.frame
        if frame is None:
            return
        if self.watcher is not None:
            self.watcher.turn()
        for path, leaf in leaves(value):
            if self.is_value(leaf):
                local = name + output_suffix(path)
                self.inside(frame, f"/{local}" if frame.name else local, "record", leaf)

    def inside(
        self,
        frame: Frame,
        suffix: str,
        op: str,
        tensor: Any,
        kind: Kind = "activation",
        reason: str = "",
    ) -> None:
        """Take in a value that is computed within ``frame`` and is no layer's output."""
        name, base = self.unused(frame.name + suffix), frame.path + suffix
        value = Value(name, base, op, tensor, kind, frame.groups, frame.operands, inside=True)
        value.reason = reason
        self.on_value(value)

    def operation(
        self, frame: Frame, suffix: str, op: str, tensor: Any, operands: Any, source: str
    ) -> None:
        """Take in the result of a single operation."""
        wanted = frame.name + suffix
        while wanted in self.ownership.paths:
            wanted += "_"  # a layer called like an operation keeps its name
        name, base = self.unused(wanted), frame.path + suffix
        known = self.known(operands)
        self._produced(tensor, name)
        value = Value(name, base, op, tensor, "activation", frame.groups, known, inside=True)
        value.source = source
        self.on_value(value)

    @property
    def frame(self) -> Frame | None:
        """The innermost call that has a name."""
        return next((frame for frame in reversed(self._frames) if frame is not None), None)

    @contextmanager
    def muting(self, on: bool, /) -> Iterator[None]:
        with self.watcher.muting(on) if self.watcher is not None else nullcontext():
            yield

    def looping(self, model: Any, method: str, /) -> AbstractContextManager[None]:
        """See :class:`layertap.runtimes.keras.intercept.Listener`."""
        return self.on_loop(method) if model is self.root else nullcontext()

    def states(self, layer: Any) -> StateTaker | None:
        """See :class:`layertap.runtimes.keras.intercept.Listener`."""
        frame = self._frames[-1] if self._frames else None
        if frame is None:
            return None
        prefix, names = ":", state_names(layer.cell)
        if frame.timed and frame.layer.layer is layer:
            return StateTaker(self, frame, prefix, names, timed=True)
        if frame.layer is not layer:
            return None
        parent = self._frames[-2] if len(self._frames) > 1 else None
        if parent is not None and isinstance(parent.layer, keras.layers.Bidirectional):
            forward = layer is parent.layer.forward_layer
            return StateTaker(self, parent, ":forward." if forward else ":backward.", names)
        return StateTaker(self, frame, prefix if frame.name else f"{OUTPUT}:", names)

    def _turn_and_leave(self, frame: Frame) -> None:
        if self.watcher is not None:
            self.watcher.turn()
            self.watcher.leave(frame)

    def _emit_timed(self, frame: Frame) -> None:
        """Stack the states that a recurrent layer had at each step of a TimeDistributed one."""
        for suffix in frame.steps[0]:
            with self.muting(True):
                stacked = keras.ops.stack([step[suffix] for step in frame.steps], axis=1)
            op = type(frame.layer.layer).__name__
            self.inside(frame, suffix, op, stacked, "state")

    def _root_frame(self, layer: Any) -> Frame:
        self._reset()
        self._scope = get_symbolic_scope()
        self.on_begin()
        return Frame(layer, 0, "", "", (), ())

    def _path(self, parent: Frame, layer: Any) -> str:
        local = self.ownership.local_name(parent.layer, layer)
        wanted = f"{parent.path}/{local}" if parent.path else local
        key = (wanted, id(layer))
        if key not in self._paths:
            taken = {path for path, _ in self._paths.values()}
            self._paths[key] = (unused(wanted, taken), layer)
        return self._paths[key][0]

    def unused(self, wanted: str) -> str:
        """A name that no value of this call has yet; from now on it is taken."""
        name = unused(wanted, self._names)
        self._names.add(name)
        return name

    def _produced(self, tensor: Any, name: str) -> None:
        if self.operands:
            self._producers.setdefault(id(tensor), []).append(name)
            self._alive.append(tensor)

    def known(self, arguments: Any) -> tuple[str, ...]:
        """The names of those tensors in ``arguments`` that are values of this call."""
        if not self.operands:
            return ()
        found = (self._producers.get(id(leaf)) for _, leaf in leaves(arguments))
        return tuple(dict.fromkeys(names[-1] for names in found if names))

    def _finish(self, outputs: Any) -> None:
        for path, leaf in leaves(outputs):
            if self.is_value(leaf):
                name = self.unused(OUTPUT + output_suffix(path))
                known = self._producers.get(id(leaf), ())
                op = type(self.root).__name__
                self.on_value(Value(name, name, op, leaf, OUTPUT, (), tuple(known)))


class StateTaker:
    """Takes the states of one call of a recurrent layer; they belong to ``frame``."""

    def __init__(
        self,
        recorder: Recorder,
        frame: Frame,
        prefix: str,
        names: Sequence[str],
        timed: bool = False,
    ) -> None:
        self._recorder, self._frame, self._prefix = recorder, frame, prefix
        self._names, self._timed = names, timed
        self.operations = recorder.watcher is not None
        steps = (f"{frame.name}{prefix}{name}_steps" for name in names)
        self.wanted = frozenset(i for i, name in enumerate(steps) if recorder.wants(name))

    def take(self, last: Sequence[Any], steps: Mapping[int, Any], missing: str) -> None:
        names = self._names
        if len(last) != len(names):
            names = [f"state{i}" for i in range(len(last))]
        found = {self._prefix + name: state for name, state in zip(names, last, strict=True)}
        lacking = {}
        for i in sorted(self.wanted & set(range(len(names)))):
            name = f"{self._prefix}{names[i]}_steps"
            if i in steps:
                found[name] = steps[i]
            else:
                lacking[name] = last[i]
        if self._timed:
            self._frame.steps.append(found)
            return
        op = type(self._frame.layer).__name__
        for suffix, tensor in found.items():
            self._recorder.inside(self._frame, suffix, op, tensor, "state")
        for suffix, tensor in lacking.items():
            self._recorder.inside(self._frame, suffix, op, tensor, "state", missing)


def _is_timed(layer: Any, args: tuple[Any, ...]) -> bool:
    if not (isinstance(layer, keras.layers.TimeDistributed) and args):
        return False
    shape: Any = getattr(args[0], "shape", ())
    return len(shape) > 1 and shape[1] is not None


def settled(values: Sequence[Value]) -> list[Value]:
    """The tap points of one call, given everything that it produced.

    A layer's output that is a model output takes that kind, and the model's own name for it is
    dropped. Of a layer whose calls cannot be read only one entry stays: how often it is called,
    and whether once more for a trial, is the backend's own business.
    """
    reasons = {v.groups[-1]: v.reason for v in values if v.reason and v.groups and not v.inside}
    kept: list[Value] = []
    seen: set[str] = set()
    for value in _with_outputs(values):
        value.reason = value.reason or next((reasons[g] for g in value.groups if g in reasons), "")
        if value.reason:
            if value.base in seen:
                continue
            seen.add(value.base)
        kept.append(value)
    return kept


def _with_outputs(values: Sequence[Value]) -> list[Value]:
    own = {value.name: value for value in values if value.kind != OUTPUT}
    rest: list[Value] = []
    for value in values:
        if value.kind != OUTPUT:
            continue
        # The last layer that returned this very tensor: an identity comes after its source.
        found = [own[name] for name in value.operands if name in own]
        makers = [one for one in found if one.kind != OUTPUT and not one.inside]
        if makers:
            makers[-1].kind = OUTPUT
        else:
            rest.append(value)
    return [*own.values(), *rest]
