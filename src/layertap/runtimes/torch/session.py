"""A PyTorch module as a session."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._pytree import tree_map

import layertap.runtimes.torch.source as sources
from layertap import recording
from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, InputSpec, count_samples
from layertap.core.graph import TapPoint
from layertap.core.plan import check_readable
from layertap.core.protocols import Capabilities, Json, Pass
from layertap.errors import FeedError, RunError, RuntimeFailure, SourceError, Untappable
from layertap.runtimes.torch.arrays import to_array
from layertap.runtimes.torch.catalog import Catalog, is_compiled, is_training
from layertap.runtimes.torch.feeding import (
    Arguments,
    is_square,
    look,
    with_one_more,
)
from layertap.runtimes.torch.intercept import Around, Interception
from layertap.runtimes.torch.passes import TapPass
from layertap.runtimes.torch.state import State
from layertap.runtimes.torch.tracing import (
    Key,
    Names,
    TorchGraph,
    Traced,
    Tracer,
    confirmed,
    promised,
)

log = logging.getLogger(__name__)

_FAKE_LOG = logging.getLogger("torch._subclasses.fake_tensor")
"""PyTorch's own, which prints a traceback when a fake call fails."""


def open(source: Any, *, allow_code: bool = False, fast_path: bool = True) -> TorchSession:
    """Open a live ``nn.Module``, or a ``.pt`` / ``.pth`` file that holds a pickled one.

    ``allow_code`` permits to load a pickle, which runs code. ``fast_path=False`` keeps PyTorch's
    fused transformer kernel from running, so that the modules inside an encoder layer are called
    and can be read; values then differ from the fused ones by rounding.

    The module runs in the mode it is in (train or eval) and under ``torch.no_grad``; its state,
    and the random generators, are after each batch as they were before it. Raises SourceError or
    CorruptModel.
    """
    return TorchSession(sources.load(source, allow_code=allow_code), fast_path=fast_path)


class TorchSession:
    """One module. Reads it eagerly, also where it was given to ``torch.compile``."""

    def __init__(self, source: sources.Source, *, fast_path: bool = True) -> None:
        uninitialized = torch.nn.parameter.is_lazy
        if any(map(uninitialized, source.module.parameters())):
            raise SourceError(
                "the module has lazy parameters without a shape yet",
                hint="call it once on an example, then open it",
            )
        self.catalog = Catalog(source.module)
        self.compiled = is_compiled(source.module)
        self.fast_path = fast_path
        self.special = self.compiled or not fast_path
        self.arguments = Arguments(self.catalog.root)
        self.state = State(self.catalog.root)
        self.names = Names(self.catalog, self.inputs)
        self.traced = promised(self.catalog, self.inputs, self.names)
        self._traced_for: object = None
        self._facts = source.facts
        self.closed = False

    @property
    def graph(self) -> TorchGraph:
        return self.traced.graph

    @property
    def inputs(self) -> Sequence[InputSpec]:
        return self.arguments.inputs

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
        return {
            "runtime": "torch",
            "version": torch.__version__,
            "model": self._facts,
            "training": self.catalog.root.training,
            "fast_path": self.fast_path and torch.backends.mha.get_fastpath_enabled(),
            "threads": torch.get_num_threads(),
        }

    def run(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        around: Around,
    ) -> None:
        """Call ``function``, the module or the beginning of it, as :meth:`_mode` says, through
        ``around``. Raises RuntimeFailure."""
        before = _is_grad_enabled()
        try:
            if self.special or self.state.frozen or (not before and _is_inference_mode_enabled()):
                with self._mode():
                    around(function, args, kwargs)
            else:
                _set_grad_enabled(False)  # torch.no_grad() does more, for which each pass would pay
                around(function, args, kwargs)
        except Exception as error:
            raise RuntimeFailure(
                f"the forward pass failed: {type(error).__name__}: {error}",
                hint="does the model run on this input without layertap?",
            ) from error
        finally:
            _set_grad_enabled(before)

    @contextmanager
    def _mode(self) -> Iterator[None]:
        """How the module is run: without gradients, eagerly, and with tensors that count their
        versions unless the module's own do not."""
        with torch.inference_mode(self.state.frozen), torch.no_grad(), ExitStack() as stack:
            if self.compiled:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if not self.fast_path and torch.backends.mha.get_fastpath_enabled():
                torch.backends.mha.set_fastpath_enabled(False)
                stack.callback(torch.backends.mha.set_fastpath_enabled, True)
            yield

    @property
    def axes(self) -> Mapping[str, str]:
        return {}

    def trace(self, feed: Feed, wanted: Any = None, /) -> TorchGraph:
        """The graph for feeds like this one, from one call with fake tensors, which computes
        nothing; from a real one where the module's control flow depends on values."""
        self.check_open()
        if not self.catalog.is_current():
            raise RunError(
                "modules were added, removed or replaced since the model was opened",
                hint="open it again",
            )
        like = look(feed), [*map(is_training, self.catalog.moody())], self._autocast()
        if like != self._traced_for:
            self.traced = self._confirmed(feed) or self._trace_real(feed)
            self._traced_for = like
        return self.traced.graph

    def _autocast(self) -> object:
        """What the user's own ``torch.autocast`` makes of operations, if it is on."""
        kinds = {"cpu", "cpu" if self.state.device is None else self.state.device.type}
        return {k: torch.get_autocast_dtype(k) for k in kinds if torch.is_autocast_enabled(k)}

    def _confirmed(self, feed: Feed) -> Traced | None:
        """A trace with fake tensors; a second one, of a larger batch, tells what counts samples
        where an input has another axis as long as the batch."""
        traced, samples = self._trace_fake(feed, self.names), count_samples(feed)
        if traced is None or not is_square(feed, samples):
            return traced
        larger = self._trace_fake(with_one_more(feed, samples), Names(self.catalog, self.inputs))
        return traced if larger is None else confirmed(traced, larger, samples)

    def _trace_fake(self, feed: Feed, names: Names) -> Traced | None:
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        root = self.catalog.root
        call = self.arguments.bind(feed)
        try:
            with _silent(_FAKE_LOG), self.state.kept(learn=True):
                args, kwargs = tree_map(_faked(fake), (call.args, call.kwargs))
                named = [
                    *root.named_parameters(remove_duplicate=False),
                    *root.named_buffers(remove_duplicate=False),
                ]
                tensors = {name: fake.from_tensor(tensor) for name, tensor in named}
                return self._listen(feed, args, kwargs, names, fake, tensors)
        except RunError:
            raise
        except Exception as error:
            log.debug("tracing with fake tensors failed, running the module instead: %s", error)
            return None

    def _trace_real(self, feed: Feed) -> Traced:
        call = self.arguments.bind(feed)
        try:
            with self.state.kept(learn=True):
                return self._listen(feed, call.args, call.kwargs, self.names)
        except RunError:
            raise
        except Exception as error:
            raise FeedError(
                f"the module does not take this input: {type(error).__name__}: {error}",
                hint=f"it takes {', '.join(spec.name for spec in self.inputs) or 'no inputs'}",
            ) from error

    def _listen(
        self,
        feed: Feed,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        names: Names,
        fake: AbstractContextManager[Any] | None = None,
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> Traced:
        root = self.catalog.root
        static = fake is not None
        tracer = Tracer(self.catalog, names, count_samples(feed), static=static)
        with self._mode(), ExitStack() as stack:
            if fake is not None:
                stack.enter_context(fake)
            tracer.inputs(self.arguments.named(args, kwargs))
            listening = Interception(tracer.listeners(), self.catalog.fused)
            with tracer.writes, listening, recording.listening(tracer.record):
                if tensors is None:
                    output = root(*args, **kwargs)
                else:
                    output = functional_call(root, dict(tensors), args, kwargs)
            return tracer.outputs(output)

    def read(self, tap: TapPoint, /) -> Array:
        """A copy of the present value of a parameter or buffer."""
        self.check_open()
        tensors = dict(self.catalog.tensors())
        if tap.kind != "weight" or tap.name not in self.traced.keys:
            raise RunError(f"{tap.name!r} is not a weight", hint="capture it instead")
        name = self.traced.keys[tap.name].suffix
        return to_array(tensors[name].detach().clone())

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


_is_grad_enabled: Callable[[], bool] = torch.is_grad_enabled
_is_inference_mode_enabled: Callable[[], bool] = torch.is_inference_mode_enabled
_set_grad_enabled: Callable[[bool], None] = torch._C._set_grad_enabled


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """Keep a logger quiet about failures that are expected and reported in another way."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _faked(fake: FakeTensorMode) -> Any:
    return lambda leaf: fake.from_tensor(leaf) if isinstance(leaf, torch.Tensor) else leaf
