"""The states of recurrent layers, after the last step and after each, from the layer's own loop.

While somebody listens, ``RNN.inner_loop`` and what Keras loops with (``backend.rnn``, the fused
``backend.lstm`` and ``backend.gru``, and the primitives that they loop with in turn) are replaced
by versions that pass everything through and take the states along. The layer's result comes from
the very operations that it comes from otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import keras

BACKEND = keras.backend.backend()

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Makes the replacement of a function from the function."""

FUSED = (
    "the layer runs in a fused kernel, which keeps the cell state of each step to itself "
    "(fused_rnn=False runs it step by step)"
)


class States(Protocol):
    """Takes the states of one call of a recurrent layer.

    ``wanted``: the numbers of the flat states that are wanted after each step. ``operations``:
    single operations are listened to, which must be the same ones whatever is wanted.
    """

    wanted: frozenset[int]
    operations: bool

    def take(self, last: Sequence[Any], steps: Mapping[int, Any], missing: str) -> None:
        """Get the states after the last step, and those after each, (sample, step, ...), in the
        order in which the layer takes the steps. ``missing``: why some of these are not there."""
        ...


class _Thread(threading.local):
    call: Call | None = None
    loop: Loop | None = None


_thread = _Thread()


def forget() -> None:
    """No call of this thread is in progress, whatever interrupted the latest."""
    _thread.call = _thread.loop = None


class Call:
    """One call of a recurrent layer that somebody listens to. ``muted`` makes the context in which
    what is computed is nobody's business, ``heard`` the one within it in which it is; ``fused``:
    the layer may take a fused kernel."""

    def __init__(
        self,
        layer: Any,
        states: Sequence[States],
        muted: Callable[[], AbstractContextManager[None]],
        heard: Callable[[], AbstractContextManager[None]],
        *,
        fused: bool,
    ) -> None:
        self.layer, self.states, self.muted, self.heard = layer, states, muted, heard
        self.may_fuse = fused
        self.wanted = frozenset[int]().union(*(taker.wanted for taker in states))
        self.steps: dict[int, Any] = {}
        self.missing = ""

    def inner_loop(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The layer's loop over time, whichever way it takes."""
        before, _thread.call = _thread.call, self
        try:
            result = original(*args, **kwargs)
        finally:
            _thread.call = before
        with self.muted():
            dtype = self.layer.compute_dtype  # as RNN.call does with what it returns
            last = [keras.ops.cast(state, dtype) for state in keras.tree.flatten(result[2])]
            steps = {i: keras.ops.cast(step, dtype) for i, step in self.steps.items()}
            for taker in self.states:
                taker.take(last, steps, self.missing)
        return result

    def rnn(self, original: Callable[..., Any], args: tuple[Any, ...], options: Any) -> Any:
        """``backend.rnn``, which loops in Python or in the compiled graph."""
        step, inputs, initial, *rest = args
        unrolled = bool(options.get("unroll"))
        in_python = unrolled or BACKEND == "torch"
        before: list[list[Any]] = []
        trial = not unrolled and BACKEND != "jax"

        def heard(x: Any, states: Any) -> Any:
            nonlocal trial
            if trial:
                trial = False
                with self.muted():  # Keras learns the shape of what a step returns
                    return step(x, states)
            if in_python:
                before.append(keras.tree.flatten(states))
            return step(x, states)

        wanted = self.wanted
        loop = Loop(len(initial), keras.tree.flatten(inputs)[0], wanted, self.muted)
        _thread.loop = loop if wanted and not in_python else None
        try:
            result = original(heard, inputs, initial, *rest, **options)
        finally:
            _thread.loop = None
        if in_python and wanted:
            after = [*before[1:], keras.tree.flatten(result[2])]
            with self.muted():
                for i in wanted:
                    loop.steps[i] = keras.ops.stack([states[i] for states in after], axis=1)
        self.steps = loop.steps
        return result

    def fused(self, original: Callable[..., Any], args: tuple[Any, ...], options: Any) -> Any:
        """``backend.lstm`` or ``backend.gru``, which loop by themselves or raise
        NotImplementedError, as Keras expects, to send the layer to ``backend.rnn``."""
        if not self.may_fuse:
            raise NotImplementedError
        wanted, cells = self.wanted, _CellStates(options.get("activation"))
        if wanted or any(taker.operations for taker in self.states):
            options = {**options, "return_sequences": True}
        if 1 in wanted and BACKEND == "torch" and args[0].device.type != "cuda":
            options["activation"] = cells
        result = original(*args, **options)
        with self.muted():
            if 0 in wanted:
                self.steps[0] = result[1]
            if 1 in wanted and cells.seen and len(cells.seen) == result[1].shape[1]:
                self.steps[1] = keras.ops.stack(cells.seen, axis=1)
            elif 1 in wanted:
                self.missing = FUSED
        return result


class _CellStates:
    """Stands in for the activation of an LSTM that runs in PyTorch's operations, in a loop that
    applies it to the candidate and then to the new cell state of each step."""

    def __init__(self, activation: Any) -> None:
        self.activation = activation
        self.calls = 0
        self.seen: list[Any] = []

    def __call__(self, x: Any) -> Any:
        self.calls += 1
        if self.calls % 2 == 0:
            self.seen.append(x)
        return self.activation(x)


class Loop:
    """The states of each step in a loop of the compiled graph; ``muted`` as in :class:`Call`."""

    def __init__(
        self,
        states: int,
        inputs: Any,
        wanted: frozenset[int],
        muted: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.states, self.wanted, self.muted, self._inputs = states, wanted, muted, inputs
        self.steps: dict[int, Any] = {}

    def length(self) -> Any:
        """The number of steps, a number or a tensor."""
        return self._inputs.shape[1] or keras.ops.shape(self._inputs)[1]

    def keep(self, number: int, stacked: Any) -> None:
        """Take in state ``number``: (step, sample, ...)."""
        axes = (1, 0, *range(2, len(stacked.shape)))
        self.steps[number] = keras.ops.transpose(stacked, axes)


def heard_rnn(original: Callable[..., Any]) -> Callable[..., Any]:
    """``backend.rnn`` that tells the call in progress."""
    return _told(original, lambda call: call.rnn)


def heard_fused(original: Callable[..., Any]) -> Callable[..., Any]:
    """``backend.lstm`` or ``backend.gru`` that tells the call in progress."""
    return _told(original, lambda call: call.fused)


def _told(original: Callable[..., Any], method: Callable[[Call], Any]) -> Callable[..., Any]:
    def function(*args: Any, **options: Any) -> Any:
        call = _thread.call
        if call is None:
            return original(*args, **options)
        _thread.call = None  # a cell may loop in turn
        try:
            return method(call)(original, args, options)
        finally:
            _thread.call = call

    return function


def heard_loop(original: Callable[..., Any], with_states: Callable[..., Any]) -> Callable[..., Any]:
    """A loop primitive that goes to ``with_states(original, loop, ...)`` when Keras loops with it
    over the time steps of a layer whose states are wanted."""

    def function(*args: Any, **options: Any) -> Any:
        loop = _thread.loop
        if loop is None:
            return original(*args, **options)
        _thread.loop = None
        return with_states(original, loop, *args, **options)

    return function


def state_names(cell: Any) -> list[str]:
    """Names of the flat states of ``cell``: ``hidden`` and ``cell``, or ``state0``... where nobody
    knows what they are; with the number of the cell in front where several are stacked."""
    if isinstance(cell, keras.layers.StackedRNNCells):
        return [f"{i}.{name}" for i, one in enumerate(cell.cells) for name in _names(one)]
    return _names(cell)


def _names(cell: Any) -> list[str]:
    # The base class of the cells of ConvLSTM1D, 2D and 3D has no public name.
    if any(base.__name__ in ("LSTMCell", "ConvLSTMCell") for base in type(cell).__mro__):
        return ["hidden", "cell"]
    count = len(list(_sizes(cell.state_size)))
    return ["hidden"] if count == 1 else [f"state{i}" for i in range(count)]


def _sizes(size: Any) -> Iterator[Any]:
    if isinstance(size, list | tuple):
        for one in size:
            yield from _sizes(one)
    else:
        yield size
