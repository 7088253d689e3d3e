"""A PyTorch module as a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch

import layertap.runtimes.torch.source as sources
from layertap import recording
from layertap.core.dtypes import Array
from layertap.core.feeds import Batch, Feed, InputSpec, count_samples
from layertap.core.graph import TapPoint
from layertap.core.interrupts import Deferred
from layertap.core.plan import check_readable
from layertap.core.protocols import Capabilities, Json, Pass, Wanted
from layertap.errors import FeedError, RunError, RuntimeFailure, SourceError, Untappable
from layertap.runtimes.torch import internals
from layertap.runtimes.torch.arrays import to_array
from layertap.runtimes.torch.catalog import Catalog, is_compiled
from layertap.runtimes.torch.feeding import Arguments, Call, look
from layertap.runtimes.torch.following import Following
from layertap.runtimes.torch.further import settled
from layertap.runtimes.torch.graph import Key, Names, TorchGraph, promised
from layertap.runtimes.torch.listening import Listening
from layertap.runtimes.torch.passes import Reader, TapPass
from layertap.runtimes.torch.places import Place
from layertap.runtimes.torch.state import State
from layertap.runtimes.torch.tracing import Traced, Tracer, input_leaves

_NEEDS_GRADIENTS = "does not require grad"
"""What PyTorch says to a forward that differentiates, where gradients are off."""


def open(
    source: Any,
    *,
    allow_code: bool = False,
    fast_path: bool = True,
    random: str = "repeat",
) -> TorchSession:
    """Open a live ``nn.Module``, or a ``.pt`` / ``.pth`` file that holds a pickled one.

    ``allow_code`` permits to load a pickle, which runs code. ``fast_path=False`` keeps PyTorch's
    fused transformer kernel from running, so that the modules inside an encoder layer are called
    and can be read; values then differ from the fused ones by rounding. ``random="advance"``: each
    batch draws anew from the process's random generators, which move on as in plain calls (Monte
    Carlo dropout); with ``"repeat"`` they are after each batch as they were before it.

    The module runs in the mode it is in (train or eval) and without gradients, unless its own
    forward differentiates; its parameters, buffers and modes are after each batch as they were
    before it. Raises SourceError or CorruptModel.
    """
    if random not in ("repeat", "advance"):
        raise SourceError(f"random={random!r} is not known", hint="it is 'repeat' or 'advance'")
    module = sources.load(source, allow_code=allow_code)
    return TorchSession(module, fast_path=fast_path, advance=random == "advance")


class _First(NamedTuple):
    """The batch that was traced, and what is kept of it."""

    feed: Feed
    values: Mapping[Key, torch.Tensor]


class TorchSession:
    """One module. Reads it eagerly, also where it was given to ``torch.compile``."""

    def __init__(
        self, source: sources.Source, *, fast_path: bool = True, advance: bool = False
    ) -> None:
        if any(map(torch.nn.parameter.is_lazy, source.module.parameters())):
            raise SourceError(
                "the module has lazy parameters without a shape yet",
                hint="call it once on an example, then open it",
            )
        self.catalog = Catalog(source.module)
        self.compiled = is_compiled(source.module)
        self.fast_path, self.advance = fast_path, advance
        self.gradients = False
        self.arguments = Arguments(self.catalog.root)
        self.listening = Listening([slot.module for slot in self.catalog.slots])
        self.names = Names(self.catalog, self.inputs)
        self.traced = Traced(promised(self.catalog, self.inputs, self.names))
        self._state: State | None = None
        self._traced_for: object = None
        self._first: _First | None = None
        self._facts = source.facts
        self.closed = False

    @property
    def graph(self) -> TorchGraph:
        return self.traced.graph

    @property
    def axes(self) -> Mapping[str, str]:
        return self.traced.axes

    @property
    def inputs(self) -> Sequence[InputSpec]:
        return self.arguments.inputs

    @property
    def state(self) -> State:
        """What is put back after each batch; found anew where other tensors took their places."""
        if self._state is None or not self._state.is_current():
            self._state = State(self.catalog.root, advance=self.advance)
        return self._state

    @property
    def capabilities(self) -> Capabilities:
        reasons = []
        if self.compiled:
            reasons.append("torch.compile is bypassed: the module runs eagerly")
        if self.catalog.fused and not self.fast_path:
            reasons.append("the fused transformer kernel is switched off (fast_path=False)")
        return Capabilities(traced=True, bit_exact=not reasons, reason="; ".join(reasons))

    @property
    def provenance(self) -> Mapping[str, Json]:
        facts = {
            "runtime": "torch",
            "version": torch.__version__,
            "model": self._facts,
            "training": self.catalog.root.training,
            "fast_path": self.fast_path and torch.backends.mha.get_fastpath_enabled(),
            "threads": torch.get_num_threads(),
            "random": "advance" if self.advance else "repeat",
            "gradients": self.gradients,
            "values": "copied when they are produced",
        }
        replaced = internals.report()
        return {**facts, "internals": dict(replaced)} if replaced else facts

    def bind(self, feed: Feed) -> tuple[Call, Mapping[str, Any]]:
        """The call that ``feed`` stands for, and its arguments by name. Raises FeedError."""
        self.check_open()
        call = self.arguments.bind(feed)
        return call, self.arguments.named(call.args, call.kwargs)

    def forward(self, function: Callable[..., Any], call: Call, reader: Reader) -> None:
        """Call ``function``, the module or the beginning of it, while ``reader`` listens. Raises
        RuntimeFailure."""
        try:
            self._run(function, call, reader)
        except (RunError, Untappable):
            raise
        except Exception as error:
            raise RuntimeFailure(
                f"the forward pass failed: {type(error).__name__}: {error}",
                hint="does the model run on this input without layertap?",
            ) from error

    def _run(
        self,
        function: Callable[..., Any],
        call: Call,
        ear: Reader | Tracer,
        following: Following | None = None,
    ) -> Any:
        """One call, of which the module is left as it was found, whatever ends it. Returns what
        ``ear`` makes of the output before that."""
        with Deferred() as interrupts:
            state = self.state
            saved = state.save()
            if following is not None:
                following.before_write = saved.before_write
            try:
                with (
                    self.listening.captured(ear),
                    self._mode(state.frozen),
                    self._recorded(ear),
                    interrupts.allowed(),
                ):
                    with following or nullcontext():
                        output = function(*call.args, **call.kwargs)
                    result = ear.finished(output)
            finally:
                saved.restore()
            saved.check()
            return result

    def _recorded(self, ear: Reader | Tracer) -> Any:
        return nullcontext() if ear.record is None else recording.listening(ear.record)

    @contextmanager
    def _mode(self, frozen: bool) -> Iterator[None]:
        """How the module is run: without gradients, eagerly, and with tensors that count their
        versions unless the module's own do not."""
        grad = torch.enable_grad if self.gradients else torch.no_grad
        with torch.inference_mode(frozen), grad(), ExitStack() as stack:
            if self.compiled:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if not self.fast_path and torch.backends.mha.get_fastpath_enabled():
                torch.backends.mha.set_fastpath_enabled(False)
                stack.callback(torch.backends.mha.set_fastpath_enabled, True)
            yield

    def trace(self, feed: Feed, wanted: Wanted | None = None, /) -> TorchGraph:
        """The graph for feeds like this one, from one call, of which the values that are wanted
        are kept for the pass that reads this feed."""
        self.check_open()
        self._first = None
        if not self.catalog.is_current():
            raise RunError(
                "modules were added, removed or replaced since the model was opened",
                hint="open it again",
            )
        modes = [slot.module.training for slot in self.catalog.slots]
        axes = sorted(feed.axes.items()) if isinstance(feed, Batch) else []
        like = look(feed), axes, modes, self._autocast(), self.gradients
        if like != self._traced_for or self._is_doubtful(wanted):
            self.traced = self._trace(feed, wanted)
            self._traced_for = *like[:-1], self.gradients
        return self.traced.graph

    def _is_doubtful(self, wanted: Wanted | None) -> bool:
        """Whether something is wanted of which one more run may prove which axis counts samples."""
        graph = self.traced.graph
        return wanted is not None and any(wanted(graph[name]) for name in self.traced.doubtful)

    def _autocast(self) -> object:
        """What the user's own ``torch.autocast`` makes of operations, if it is on."""
        kinds = {"cpu", *(device.type for device in self.state.devices)}
        return {k: torch.get_autocast_dtype(k) for k in kinds if torch.is_autocast_enabled(k)}

    def _trace(self, feed: Feed, wanted: Wanted | None) -> Traced:
        samples = count_samples(feed)
        traced = self._call_once(feed, wanted, samples)
        doubtful = [n for n in traced.doubtful if wanted is None or wanted(traced.graph[n])]
        if wanted is not None and doubtful:
            traced = settled(self, traced, doubtful, feed, samples)
        if wanted is not None:
            self._first = _First(feed, traced.values)
        return traced.without_values()

    def _call_once(self, feed: Feed, wanted: Wanted | None, samples: int) -> Traced:
        call, named = self.bind(feed)
        following = Following(samples, self.state.owned)
        axes = feed.axes if isinstance(feed, Batch) else {}
        for name, value in named.items():
            for _, leaf in input_leaves({name: value}):
                following.begin(leaf, _place(leaf, axes.get(name, 0), samples))
        tracer = Tracer(self.catalog, self.names, following, wanted)
        tracer.inputs(named)
        try:
            traced: Traced = self._run(self.catalog.root, call, tracer, following)
        except (RunError, Untappable):
            raise
        except Exception as error:
            if _NEEDS_GRADIENTS in str(error) and not self.gradients:
                self.gradients = True
                return self._call_once(feed, wanted, samples)
            raise FeedError(
                f"the model does not take this input: {type(error).__name__}: {error}",
                hint=f"it takes {', '.join(spec.name for spec in self.inputs) or 'no inputs'}",
            ) from error
        return traced

    def kept(self, feed: Feed) -> Mapping[Key, torch.Tensor] | None:
        """What was kept of ``feed`` when it was traced. It is handed out once."""
        first, self._first = self._first, None
        return first.values if first is not None and first.feed is feed else None

    def release(self) -> None:
        """Let go of what is kept."""
        self._first = None

    def read(self, tap: TapPoint, /) -> Array:
        """A copy of the present value of a parameter or buffer."""
        self.check_open()
        if tap.kind != "weight" or tap.name not in self.traced.keys:
            raise RunError(f"{tap.name!r} is not a weight", hint="capture it instead")
        name = self.traced.keys[tap.name].suffix
        return to_array(self.catalog.tensor(name).detach().clone())

    def prepare(self, taps: Sequence[TapPoint], /) -> Pass:
        self.check_open()
        keys = [self._key(tap) for tap in taps]
        check_readable(taps)
        if keys and self.graph.complete and all(map(self._is_skipped, taps, keys)):
            raise Untappable(
                f"{taps[0].name!r} is not called: PyTorch's fused transformer kernel runs instead",
                hint="open the model with fast_path=False",
            )
        return TapPass(self, tuple(taps), keys, self.traced)

    def _key(self, tap: TapPoint) -> Key:
        key = self.traced.keys.get(tap.name)
        if key is None:
            raise Untappable(
                f"{tap.name!r} is not in the graph of the latest example",
                hint="trace an example in which it occurs",
            )
        return key

    def _is_skipped(self, tap: TapPoint, key: Key) -> bool:
        fused = key.slot >= 0 and self.catalog.slots[key.slot].module in self.catalog.fused
        return fused and tap.shape is None

    def check_open(self) -> None:
        """Raise RunError after :meth:`close`."""
        if self.closed:
            raise RunError("the model is closed", hint="open it again")

    def close(self) -> None:
        """Let go of what was learned. The module is the caller's. Idempotent."""
        self.closed = True
        self._first = None


def _place(tensor: torch.Tensor, axis: int | None, samples: int) -> Place | None:
    """Where the samples of an input lie, whose axis ``axis`` counts them if it is as long."""
    if axis is None or not -tensor.ndim <= axis < tensor.ndim or tensor.shape[axis] != samples:
        return None
    return Place(axis % tensor.ndim)
