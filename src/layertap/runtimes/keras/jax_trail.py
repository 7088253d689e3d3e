"""The operations of a jaxpr as steps of a trail: which keep samples in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layertap.core.following import Key, Step, Trail
from layertap.runtimes.keras.jaxprs import MARK, Path, inlined

_PLAIN = frozenset(
    """
    abs acos acosh add add_any and argmax argmin asin asinh atan atan2 atanh broadcast_in_dim cbrt
    ceil clamp concatenate conj conv_general_dilated convert_element_type copy copy_p cos cosh
    cumlogsumexp cummax cummin cumprod cumsum digamma div dot_general dynamic_slice eq erf erf_inv
    erfc exp exp2 expand_dims expm1 floor ge gt imag integer_pow iota is_finite le lgamma log
    log1p logistic lt max min mul ne neg nextafter not optimization_barrier or pad
    population_count pow random_bits random_seed random_unwrap random_wrap real reduce_and
    reduce_max reduce_min reduce_or reduce_precision reduce_prod reduce_sum reduce_window
    reduce_window_max reduce_window_min reduce_window_sum reduce_xor rem rev round rsqrt select_n
    shift_left shift_right_arithmetic shift_right_logical sign sin sinh slice split sqrt square
    stop_gradient sub tan tanh top_k transpose xor
    """.split()  # noqa: SIM905
)
_RESHAPES = frozenset({"reshape", "squeeze"})
_LOOKUPS = frozenset({"gather"})


def trail(jaxpr: Any, names: Sequence[str]) -> Trail:
    """The trail of an open ``jaxpr`` whose arguments are called ``names``; a tensor's key is the
    place where it is computed, as in :class:`layertap.runtimes.keras.jaxprs.Found`."""
    keys: dict[Any, Key] = dict(zip(jaxpr.invars, names, strict=True))
    steps = list(_constants(jaxpr, keys, ()))
    steps += _steps(jaxpr, keys, ())
    inputs = {keys[one]: tuple(one.aval.shape) for one in jaxpr.invars}
    return Trail(inputs, steps)


def _constants(jaxpr: Any, keys: dict[Any, Key], path: Path) -> Iterator[Step]:
    for number, one in enumerate(jaxpr.constvars):
        if one not in keys:
            keys[one] = ("constant", path, number)
            yield Step("constant", (), ((keys[one], _shape(one)),))


def _steps(jaxpr: Any, keys: dict[Any, Key], path: Path) -> Iterator[Step]:
    for number, equation in enumerate(jaxpr.eqns):
        here = (*path, number)
        atoms = [atom for atom in equation.invars if not hasattr(atom, "val")]
        inner = inlined(equation)
        if inner is not None:
            yield from _called(equation, inner, keys, here)
            continue
        for output, variable in enumerate(equation.outvars):
            keys[variable] = (here, output)
        outputs = tuple((keys[one], _shape(one)) for one in equation.outvars)
        yield _step(equation, tuple(keys[atom] for atom in atoms), outputs)


def _called(equation: Any, inner: Any, keys: Mapping[Any, Key], path: Path) -> Iterator[Step]:
    """The steps of what an equation merely calls, whose results are the equation's."""
    inside: dict[Any, Key] = {}
    for own, given in zip(inner.jaxpr.invars, equation.invars, strict=True):
        if hasattr(given, "val"):
            inside[own] = ("literal", path, len(inside))
            yield Step("constant", (), ((inside[own], _shape(given)),))
        else:
            inside[own] = keys[given]
    yield from _constants(inner.jaxpr, inside, path)
    yield from _steps(inner.jaxpr, inside, (*path, 0))
    for own, result in zip(equation.outvars, inner.jaxpr.outvars, strict=True):
        literal = hasattr(result, "val")
        keys[own] = ("result", path, str(own)) if literal else inside[result]  # type: ignore[index]
        if literal:
            yield Step("constant", (), ((keys[own], _shape(own)),))


def _step(equation: Any, inputs: tuple[Key, ...], outputs: Any) -> Step:
    op = equation.primitive.name
    if op in _LOOKUPS:
        return Step(op, inputs, outputs, kind="lookup")
    if op in _RESHAPES:
        return Step(op, inputs, outputs, kind="reshape")
    if equation.primitive is not MARK and op not in _PLAIN:
        return Step(op, inputs, outputs, None)
    upsets: frozenset[int] = frozenset()
    if op == "rev":
        upsets = frozenset(equation.params["dimensions"])
    elif op == "top_k":
        upsets = frozenset({len(_shape(equation.invars[0])) - 1})
    return Step(op, inputs, outputs, upsets)


def _shape(atom: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in atom.aval.shape)


__all__ = ["trail"]
