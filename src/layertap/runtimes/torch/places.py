"""Where the samples of an operation's results lie, told from where those of its operands do.

Elementwise operations and views tell by themselves. Of every other operation one sample is computed
alone: if the result is the slice of the whole result along one axis, that axis counts samples. What
cannot be told is unknown, and so is all that is made of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from layertap.core.dtypes import rounding
from layertap.runtimes.torch.internals import tree_leaves, tree_map

log = logging.getLogger(__name__)

aten = torch.ops.aten


class Place(NamedTuple):
    """Where samples lie: on ``axis``, whose length is ``outer * samples * inner``."""

    axis: int
    outer: int = 1
    inner: int = 1

    @property
    def alone(self) -> bool:
        """Whether the axis counts samples and nothing else."""
        return self.outer == self.inner == 1


UNKNOWN = Place(-1)

_ELEMENTWISE = {
    aten.copy_, aten._to_copy, aten.clone, aten.detach, aten.alias, aten.lift_fresh, aten.lift,
    aten.masked_fill, aten.masked_fill_, aten.fill_, aten.zero_, aten.bernoulli_, aten.normal_,
    aten.uniform_, aten.exponential_, aten.random_, aten.native_dropout, aten._softmax, aten.expand,
    aten._log_softmax, aten.dropout, aten.dropout_, aten.contiguous, aten.to, aten.softmax,
}  # fmt: skip
"""Operations that keep each element in its place and are not marked as such."""

_VIEWS = {aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias, aten.view_copy}
NORMS = {
    aten.native_batch_norm, aten._native_batch_norm_legit, aten.batch_norm, aten.cudnn_batch_norm,
    aten._native_batch_norm_legit_no_training, aten._native_batch_norm_legit_functional,
    aten._batch_norm_with_update, aten._batch_norm_no_update, aten.native_group_norm,
}  # fmt: skip
"""They leave each element in its place, whatever else they look at."""

_MOVES = {
    aten.sort, aten.argsort, aten.topk, aten.msort, aten.flip, aten.roll, aten.index, aten.gather,
    aten.index_select, aten.take, aten.scatter, aten.index_put, aten.rot90,
}  # fmt: skip
"""They put elements in other places, some by their values: that one batch comes out in its order
proves nothing of the next."""

_ATTENTION = "_scaled_dot_product_"
"""How the names of operations begin that keep apart what lies on the first two axes."""


class Operation:
    """One operation, before it is carried out: what it would give for one sample alone."""

    def __init__(
        self,
        func: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        samples: int,
        place: Callable[[torch.Tensor], Place | None],
        *,
        writes: bool,
    ) -> None:
        self.samples = samples
        self.func, self.args, self.kwargs = func, args, kwargs
        self.packet = func.overloadpacket
        self.pure = _pure(func) if writes else func
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        places = ((leaf, place(leaf)) for leaf in leaves)
        self.known = [(leaf, place) for leaf, place in places if place is not None]
        self.alone: list[Any] | None = None
        unknown = any(place == UNKNOWN for _, place in self.known)
        # Whatever is not PyTorch's own may do more than compute.
        may_repeat = func.namespace == "aten" and self.pure is not None
        may_repeat = may_repeat and not self._moves_samples()
        if self.known and not unknown and may_repeat and not self._tells():
            self.alone = self._one_alone()

    def _tells(self) -> bool:
        """Whether the operation tells by itself where samples end up."""
        known = self.packet in _VIEWS or self.packet in NORMS
        known = known or self.packet in (aten.cat, aten.stack) or self._is_attention()
        return known or self._is_elementwise() or _is_made_new(self.packet)

    def _is_attention(self) -> bool:
        return bool(self.packet.__name__.startswith(_ATTENTION))

    def _moves_samples(self) -> bool:
        """Whether elements may move from one sample to another: unless they do along other axes
        only, which are named."""
        if self.packet not in _MOVES and self.pure not in _MOVES:
            return False
        names = [argument.name for argument in self.func._schema.arguments]
        given = {**dict(zip(names, self.args, strict=False)), **self.kwargs}
        named = given.get("dim", given.get("dims"))
        if not isinstance(named, int | list | tuple):
            return True
        dims = [named] if isinstance(named, int) else named
        return any(
            place.axis in [dim % tensor.ndim for dim in dims] for tensor, place in self.known
        )

    def _is_elementwise(self) -> bool:
        return torch.Tag.pointwise in self.func.tags or self.packet in _ELEMENTWISE

    def places(self, outputs: Sequence[torch.Tensor]) -> list[Place | None]:
        """Where the samples of ``outputs`` lie."""
        if not self.known or _is_made_new(self.packet):
            return [None] * len(outputs)
        if any(place == UNKNOWN for _, place in self.known):
            return [UNKNOWN] * len(outputs)
        if self._is_elementwise():
            return [self._broadcast(output) for output in outputs]
        if self.packet in _VIEWS:
            return [self._viewed(output) for output in outputs]
        if self.packet in (aten.cat, aten.stack):
            return [self._joined(output) for output in outputs]
        if self.packet in NORMS:
            ((_, place),) = self.known
            return [place, *[None] * (len(outputs) - 1)]
        if self._is_attention():
            return [self._attended(output) for output in outputs]
        if self.alone is None:
            return [UNKNOWN] * len(outputs)
        return [self._found(*pair) for pair in zip(outputs, self.alone, strict=True)]

    def _broadcast(self, output: torch.Tensor) -> Place | None:
        """Axes are counted from the last where shapes differ."""
        places = {
            place._replace(axis=place.axis + output.ndim - tensor.ndim)
            for tensor, place in self.known
        }
        place = places.pop()
        fits = 0 <= place.axis < output.ndim and output.shape[place.axis] == self._length(place)
        return place if fits and not places else UNKNOWN

    def _attended(self, output: torch.Tensor) -> Place | None:
        if output.ndim < 2:
            return None
        place, *others = {place for _, place in self.known}
        length = self._length(place)
        fits = not others and place.axis < 2 and output.shape[place.axis] == length
        return place if fits else UNKNOWN

    def _length(self, place: Place) -> int:
        return place.outer * self.samples * place.inner

    def _viewed(self, output: torch.Tensor) -> Place | None:
        """The samples are a digit of the number of an element in row-major order."""
        (tensor, place), *others = self.known
        if others:
            return UNKNOWN
        inner = place.inner * math.prod(tensor.shape[place.axis + 1 :])
        found = []
        for axis, size in enumerate(output.shape):
            step = math.prod(output.shape[axis + 1 :])
            if size and inner % step == 0 and (step * size) % (inner * self.samples) == 0:
                merged = step * size // (inner * self.samples)
                found.append(Place(axis, merged, inner // step))
        # One sample fits in more than one axis: merged into those before it is what programs do.
        found.sort(key=lambda at: (not at.alone, at.inner != 1, abs(at.axis - place.axis)))
        return found[0] if found else UNKNOWN

    def _joined(self, output: torch.Tensor) -> Place | None:
        places = {place for _, place in self.known}
        place, *others = places
        dim = self.args[1] if len(self.args) > 1 else self.kwargs.get("dim", 0)
        dim %= output.ndim
        if others or (dim == place.axis and self.packet is aten.cat):
            return UNKNOWN
        if self.packet is aten.stack and dim <= place.axis:
            return place._replace(axis=place.axis + 1)
        return place

    def _one_alone(self) -> list[Any] | None:
        """What the operation gives for the last sample, or, where there is but one, for that one
        twice."""
        seeded = torch.Tag.nondeterministic_seeded in self.func.tags
        if seeded and not all(tensor.is_cpu for tensor, _ in self.known):
            return None  # its generator is another
        state = torch.get_rng_state() if seeded else None
        try:
            places = {id(tensor): place for tensor, place in self.known}
            args, kwargs = tree_map(
                lambda leaf: self._taken(leaf, places.get(id(leaf))),
                (tuple(self.args), self.kwargs),
            )
            return [
                leaf
                for leaf in tree_leaves(self.pure(*args, **kwargs))
                if isinstance(leaf, torch.Tensor)
            ]
        except Exception as error:
            log.debug("%s takes no single sample: %s", self.func, error)
            return None
        finally:
            if state is not None:
                torch.set_rng_state(state)

    @property
    def _chosen(self) -> list[int]:
        return [self.samples - 1] if self.samples > 1 else [0, 0]

    def _taken(self, tensor: Any, place: Place | None) -> Any:
        """The chosen samples of a tensor that has some."""
        if place is None or not isinstance(tensor, torch.Tensor):
            return tensor
        index = torch.tensor(self._chosen, device=tensor.device)
        if place.alone:
            return tensor.index_select(place.axis, index)
        sizes = place.outer, self.samples, place.inner
        before, after = tensor.shape[: place.axis], tensor.shape[place.axis + 1 :]
        parts = tensor.reshape(*before, *sizes, *after).index_select(place.axis + 1, index)
        return parts.flatten(place.axis, place.axis + 2)

    def _found(self, whole: torch.Tensor, alone: torch.Tensor) -> Place | None:
        """The axis along which ``alone`` is the chosen samples of ``whole``."""
        if whole.shape == alone.shape:
            return None if self.samples > 1 or len({p for _, p in self.known}) != 1 else UNKNOWN
        if whole.ndim != alone.ndim:
            return UNKNOWN
        sizes = enumerate(zip(whole.shape, alone.shape, strict=True))
        moved = [axis for axis, (a, b) in sizes if a != b]
        for _, place in self.known:
            candidate = place._replace(axis=moved[0])
            length = whole.shape[candidate.axis]
            if len(moved) > 1 or length != self._length(candidate):
                continue
            if _equal(self._taken(whole, candidate), alone):
                return candidate
        return UNKNOWN


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal but for rounding."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if torch.equal(a, b):
        return True
    if not (a.is_floating_point() or a.is_complex()):
        return False
    near = rounding(torch.finfo(a.dtype).eps)
    scale = torch.nan_to_num(a.abs(), posinf=0.0).max()
    return bool(torch.allclose(a, b, rtol=0, atol=near * float(scale), equal_nan=True))


def _is_made_new(packet: Any) -> bool:
    """Whether the operation takes of a tensor no more than its shape and type."""
    name = packet.__name__
    return bool(name.endswith("_like") or name.startswith("new_"))


def _pure(func: Any) -> Any:
    """The operation that computes what ``func`` writes to its first argument; None without one."""
    name = func.overloadpacket.__name__
    return getattr(aten, name[:-1], None) if name.endswith("_") else None
