"""Values anywhere in a JAX computation, found in its jaxpr and brought out of it.

While a function is traced, each value of interest is marked by an operation of our own that passes
it through. The jaxpr then tells where the marks are: in a scan they give one value per iteration,
and evaluating the jaxpr once more, under ``jax.jit``, hands them out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.extend.core import Literal, Primitive
from jax.interpreters import ad, batching, mlir

Path = tuple[int, ...]
"""The number of an equation, behind those of the equations that it is inside of."""

WHILE = (
    "it is computed inside a while loop, whose number of iterations JAX does not know beforehand "
    "(jax.lax.scan and fori_loop with fixed bounds can be read)"
)
_LOOPS = ("scan", "while")
BRANCH = "it is computed inside a conditional branch, which not every run takes"
OTHER = "it is computed inside {}, which layertap does not look into"


def _batched(args: Sequence[Any], axes: Sequence[int], **params: Any) -> tuple[Any, int]:
    """Under vmap a mark sees all examples: they come first, like the iterations of a loop."""
    return MARK.bind(jax.numpy.moveaxis(args[0], axes[0], 0), **params), 0


def _differentiated(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    return MARK.bind(*primals, **params), tangents[0]


MARK = Primitive("layertap")
MARK.def_impl(lambda x, **_: x)
MARK.def_abstract_eval(lambda x, **_: x)
batching.primitive_batchers[MARK] = _batched
ad.primitive_jvps[MARK] = _differentiated
mlir.register_lowering(MARK, lambda _, x, **__: [x])


def mark(value: Any, number: int) -> None:
    """Mark ``value``, a tensor of the function that is being traced."""
    MARK.bind(jax.numpy.asarray(value), number=number, rank=jax.numpy.ndim(value))


@dataclass(frozen=True)
class Found:
    """One result of an equation: ``output`` of the equation at ``path``.

    ``number`` is that of the mark, or None for the result of an operation of the function itself.
    ``loops`` are the lengths of the loops around it, from the outermost. ``reason`` tells why it
    cannot be brought out. ``scope`` is the innermost named scope of ours,
    without what ours begin with.
    """

    path: Path
    output: int
    number: int | None
    loops: tuple[int, ...]
    reason: str
    scope: str
    equation: Any = field(repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one value, loops not counted."""
        shape = tuple(self.equation.outvars[self.output].aval.shape)
        return shape if self.number is None else shape[len(shape) - self.equation.params["rank"] :]


@dataclass(frozen=True)
class _Place:
    path: Path = ()
    loops: tuple[int, ...] = ()
    reason: str = ""
    scope: str = ""


def find(jaxpr: Any, *, operations: bool, prefix: str) -> Iterator[Found]:
    """The marks in ``jaxpr`` in order of execution, and the results of its ``operations``.

    ``prefix`` is how the names of our own scopes begin.
    """
    return _find(jaxpr, _Place(), operations, prefix)


def _find(jaxpr: Any, place: _Place, operations: bool, prefix: str) -> Iterator[Found]:
    for number, equation in enumerate(jaxpr.eqns):
        path, name = (*place.path, number), equation.primitive.name
        own = re.findall(rf"{prefix}(\w+)", str(equation.source_info.name_stack))
        scope = own[-1] if own else place.scope
        if equation.primitive is MARK:
            shape = equation.outvars[0].aval.shape
            batches = tuple(shape[: len(shape) - equation.params["rank"]])
            loops = (*place.loops, *batches)
            yield Found(path, 0, equation.params["number"], loops, place.reason, scope, equation)
            continue
        for i, (inner, loops, reason) in enumerate(_inside(equation)):
            within = _Place((*path, i), (*place.loops, *loops), place.reason or reason, scope)
            yield from _find(inner, within, operations, prefix)
        if operations and name not in _LOOPS and inlined(equation) is None:
            for output in range(len(equation.outvars)):
                yield Found(path, output, None, place.loops, place.reason, scope, equation)


def _inside(equation: Any) -> Iterator[tuple[Any, tuple[int, ...], str]]:
    """The jaxprs that an equation runs, each with the iterations it adds, and why its values
    cannot be brought out."""
    params, name = equation.params, equation.primitive.name
    inner = inlined(equation)
    if inner is not None:
        yield inner.jaxpr, (), ""
    elif name == "scan":
        yield params["jaxpr"].jaxpr, (params["length"],), ""
    elif name == "while":
        yield params["cond_jaxpr"].jaxpr, (), WHILE
        yield params["body_jaxpr"].jaxpr, (), WHILE
    elif name == "cond":
        for branch in params["branches"]:
            yield branch.jaxpr, (), BRANCH
    else:
        for value in params.values():
            for one in value if isinstance(value, list | tuple) else (value,):
                jaxpr = getattr(one, "jaxpr", one)
                if hasattr(jaxpr, "eqns"):
                    yield jaxpr, (), OTHER.format(name)


@dataclass(frozen=True)
class _Inlined:
    jaxpr: Any
    consts: Sequence[Any]


_CALLS: Mapping[str, str] = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Equations that merely call a jaxpr, and the parameter that holds it."""


def inlined(equation: Any) -> _Inlined | None:
    """What an equation calls that can be evaluated in its place; None where it computes."""
    inner = equation.params.get(_CALLS.get(equation.primitive.name, ""))
    if inner is None:
        return None
    if hasattr(inner, "consts"):
        return _Inlined(inner.jaxpr, inner.consts)
    return _Inlined(inner, ())


class Evaluation:
    """Evaluates a jaxpr and keeps the results at ``wanted`` places: (path, output)."""

    def __init__(self, wanted: Collection[tuple[Path, int]]) -> None:
        self._wanted = frozenset(wanted)
        self._ways = {path[:i] for path, _ in self._wanted for i in range(len(path) + 1)}

    def __call__(self, closed: Any, args: Sequence[Any]) -> dict[tuple[Path, int], Any]:
        """The wanted results; those inside loops stacked: (outer, ..., inner, *shape)."""
        _, found = self._run(closed.jaxpr, closed.consts, args, ())
        return found

    def _run(
        self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], path: Path
    ) -> tuple[list[Any], dict[tuple[Path, int], Any]]:
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))
        found: dict[tuple[Path, int], Any] = {}

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for number, equation in enumerate(jaxpr.eqns):
            here = (*path, number)
            given = list(map(read, equation.invars))
            results, inside = self._results(equation, given, here)
            values.update(zip(equation.outvars, results, strict=True))
            found |= inside
            if here in self._ways:
                for i, result in enumerate(results):
                    if (here, i) in self._wanted:
                        found[here, i] = result
        return list(map(read, jaxpr.outvars)), found

    def _results(
        self, equation: Any, given: list[Any], path: Path
    ) -> tuple[Sequence[Any], dict[tuple[Path, int], Any]]:
        inside, inner = (*path, 0), inlined(equation)
        if equation.primitive is MARK:
            return given, {}
        if inside in self._ways and inner is not None:
            return self._run(inner.jaxpr, inner.consts, given, inside)
        if inside in self._ways and equation.primitive.name == "scan":
            return self._scan(equation.params, given, inside)
        bound = equation.primitive.get_bind_params(equation.params)
        functions, params = bound if isinstance(bound, tuple) else ((), bound)
        with equation.ctx.manager:
            results = equation.primitive.bind(*functions, *given, **params)
        return results if equation.primitive.multiple_results else [results], {}

    def _scan(
        self, params: Mapping[str, Any], given: list[Any], path: Path
    ) -> tuple[list[Any], dict[tuple[Path, int], Any]]:
        consts, carry = params["num_consts"], params["num_carry"]
        body = params["jaxpr"]

        def step(state: Any, x: Any) -> Any:
            args = [*given[:consts], *state, *x]
            results, found = self._run(body.jaxpr, body.consts, args, path)
            return results[:carry], (results[carry:], found)

        last, (ys, found) = jax.lax.scan(
            step,
            given[consts : consts + carry],
            given[consts + carry :],
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        if params["reverse"]:  # in the order in which they are computed
            found = {place: jax.numpy.flip(values, axis=0) for place, values in found.items()}
        return [*last, *ys], found
