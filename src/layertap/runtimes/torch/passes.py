"""One prepared execution: run the network, read the taps, leave everything as it was.

Which values need a copy is learned on the first batch, and again whenever a module was switched
between training and evaluation. If a value that was not copied turns out to have been overwritten,
because a batch took another branch, that batch is run again with the value copied too. Whether the
input needs a copy is learned on the first batch of each form that is read with that knowledge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed
from layertap.core.graph import TapPoint
from layertap.core.protocols import Emit
from layertap.runtimes.torch.arrays import to_array
from layertap.runtimes.torch.catalog import Catalog, is_training
from layertap.runtimes.torch.feeding import Arguments, Call
from layertap.runtimes.torch.intercept import Around
from layertap.runtimes.torch.leaves import output_leaves
from layertap.runtimes.torch.lending import Loan
from layertap.runtimes.torch.recorder import Recorder
from layertap.runtimes.torch.state import State
from layertap.runtimes.torch.tracing import INPUT, Key, Traced


class Network(Protocol):
    """What a pass needs to know of its session."""

    catalog: Catalog
    arguments: Arguments
    state: State
    closed: bool

    def run(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        around: Around,
    ) -> None: ...

    def check_open(self) -> None: ...


_MOST_QUIET = 1000
"""Forms of feeds that a pass remembers as changing nothing; further ones are looked after."""


class TapPass:
    """Runs one batch and emits ``taps`` in order; what did not occur in it is not emitted.

    Raises FeedError for a feed that does not fit ``forward``, RuntimeFailure when it fails, and
    RunError when the network was closed.
    """

    def __init__(
        self,
        network: Network,
        taps: Sequence[TapPoint],
        keys: Sequence[Key],
        traced: Traced,
    ) -> None:
        self.network = network
        self.taps = taps
        self.recorder = Recorder(network.catalog, taps, keys, traced)
        self.static = traced.static
        unheard = traced.later_than(keys) if self.recorder.stops else ()
        self.moody = network.catalog.moody(unheard)
        self.quiet: dict[object, Loan | None] = {}
        """Forms of feeds that change nothing, and how to go without copies of those."""
        self.loan: Loan | None = None
        self.lends = self.static and not any(key.slot == INPUT for key in traced.overwritten)
        self.input_taps = {k.suffix: n for n, k in enumerate(keys) if k.slot == INPUT}
        self.learned: list[bool] | None = None

    def __call__(self, feed: Feed, emit: Emit) -> None:
        if self.network.closed:
            self.network.check_open()
        moody, loan, arrays = self.moody, self.loan, None
        if moody and [*map(is_training, moody)] != self.learned:
            self.learned = None
        if loan is not None and self.learned is not None:
            lent = loan.arguments(feed)
            arrays = None if lent is None else self._execute(*lent)
        if arrays is None:
            arrays = self._read(feed)
        if self.input_taps:
            arrays.update(self._inputs(feed))
        for number, tap in enumerate(self.taps):
            if number in arrays:
                emit(tap, arrays.pop(number)[None])

    def _read(self, feed: Feed) -> dict[int, Array]:
        """Read with no more care than feeds like this one need."""
        arguments = self.network.arguments
        if self.learned is None:
            return self._learn(arguments.bind(feed))
        call = arguments.again(feed) or arguments.bind(feed)
        if call.form in self.quiet:
            self.loan = self.quiet[call.form]
            arrays = self._execute(call.args, call.kwargs)
            if arrays is not None:
                return arrays
            call = arguments.bind(feed)
        return self._settle(feed, call)

    def _learn(self, call: Call) -> dict[int, Array]:
        """Read with copies of everything, and find out what needs them."""
        self.loan = self.learned = None
        self.quiet.clear()
        now = [*map(is_training, self.moody)]
        self.recorder.copy_all()
        with self.network.state.kept(learn=True):
            arrays = self._execute(call.args, call.kwargs) or {}
        self.learned = now
        return arrays

    def _settle(self, feed: Feed, call: Call) -> dict[int, Array]:
        """Read, again if need be, and bring the state back. Where control flow does not depend on
        values, a pass that changed nothing tells that those like it need no such care."""
        arguments = self.network.arguments
        with self.network.state.kept() as saved:
            while True:
                named = arguments.named(call.args, call.kwargs)
                loan = Loan(feed, named, call) if self.lends else None
                arrays = self._execute(call.args, call.kwargs)
                if arrays is not None:
                    break
                saved.restore()
                call = arguments.bind(feed)
            if self.static and len(self.quiet) < _MOST_QUIET and not saved.moved():
                self.loan = self.quiet[call.form] = loan if loan and loan.untouched() else None
        return arrays

    def _execute(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int, Array] | None:
        function, around = self.recorder.begin()
        self.network.run(function, args, kwargs, around)
        return self.recorder.take()

    def _inputs(self, feed: Feed) -> dict[int, Array]:
        arguments = self.network.arguments
        call = arguments.bind(feed)
        leaves = (
            (name + suffix, leaf)
            for name, value in arguments.named(call.args, call.kwargs).items()
            for suffix, leaf in output_leaves(value)
        )
        found = [(self.input_taps[name], leaf) for name, leaf in leaves if name in self.input_taps]
        return {number: to_array(leaf) for number, leaf in found}
