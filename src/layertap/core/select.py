"""Selectors: which tap points of a graph to read.

Grammar, loosest first::

    selector := either ("|" either)*          union
    either   := part ("&" part)*              intersection
    part     := "~" part | "(" selector ")" | atom
    atom     := NAME | GLOB | #17 | s1/#3 | op:GLOB | kind:KIND | re:REGEX | "quoted atom"

A text that is the exact name of a tap point means that tap point, whatever characters it holds.
``re:`` takes the rest of the text, ``|`` and ``&`` included; quote it to combine it. Patterns
range over what the model computes; arguments, inputs and weights are reached by their exact name,
their native index, or in a selector that names a kind (``kind:weight & conv*``).
Tap points that cannot be read are left out unless nothing else matches.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import TypeGuard, get_args

from layertap.core.graph import COMPUTED, Graph, Kind, TapPoint
from layertap.core.messages import abridged, listed
from layertap.errors import NoSuchTap, SelectionError

Predicate = Callable[[TapPoint], bool]
Selector = str | TapPoint | Predicate | Iterable["str | TapPoint | Predicate"] | None

DEEPEST = 100
"""Parentheses and complements that may be inside one another."""

_NATIVE = re.compile(r"(?:s\d+/)?#\d+")
_KINDS = get_args(Kind)


def compile_selector(selector: Selector) -> Predicate:
    """One predicate for ``selector``; ``None`` selects everything that the model computes.

    Useful where tap points appear one by one. Raises SelectionError on bad syntax; that nothing
    matches can only be told by :func:`select`, which sees the whole graph.
    """
    if selector is None:
        return _computed
    if not is_union(selector):
        return _compile_one(selector)
    parts = [_compile_one(part) for part in selector]
    return lambda tap: any(part(tap) for part in parts)


def _compile_one(selector: object) -> Predicate:
    if isinstance(selector, str):
        return _Parser(selector).predicate()
    if isinstance(selector, TapPoint):
        name = selector.name
        return lambda tap: tap.name == name
    if callable(selector):
        return selector
    raise SelectionError(
        f"{abridged(repr(selector))} is no selector",
        hint="give a pattern, a tap point, a callable, or a list of these",
    )


def select(graph: Graph, selector: Selector, *, hint: str = "") -> tuple[TapPoint, ...]:
    """The tap points of ``graph`` that ``selector`` matches, in graph order.

    A list or tuple is a union whose every member must match something. Raises SelectionError on
    bad syntax and NoSuchTap, with near names and ``hint``, when nothing matches.
    """
    if not is_union(selector):
        return _select_one(graph, selector, hint)
    chosen = {tap.name for part in selector for tap in _select_one(graph, part, hint)}
    if not chosen:
        raise NoSuchTap("the selection is empty", hint="name at least one tap, or '*' for all")
    return tuple(tap for tap in graph if tap.name in chosen)


def reaches_arguments(selector: Selector) -> bool:
    """Whether ``selector`` may match what calls inside the model are given: a text does so only
    where it says a kind, an index, or the whole name."""
    if selector is None:
        return False
    if isinstance(selector, TapPoint):
        return selector.kind == "argument"
    if isinstance(selector, str):
        return any(part in selector for part in ("kind:", "#", ":args", ":kwargs"))
    return not is_union(selector) or any(map(reaches_arguments, selector))


def canonical(graph: Graph, selector: Selector) -> Selector:
    """``selector`` with names of tap points of ``graph``, further ones too, replaced by these: a
    name may hold what would be an operator in a pattern."""
    if isinstance(selector, str) and selector in graph:
        return graph[selector]
    if not is_union(selector):
        return selector
    return [graph[part] if isinstance(part, str) and part in graph else part for part in selector]


def is_union(selector: Selector) -> TypeGuard[Iterable[str | TapPoint | Predicate]]:
    """Whether ``selector`` is several selectors, such as a list."""
    one = isinstance(selector, str | TapPoint) or callable(selector)
    return isinstance(selector, Iterable) and not one


def _select_one(graph: Graph, selector: Selector, hint: str) -> tuple[TapPoint, ...]:
    if isinstance(selector, str) and selector in graph:
        return (graph[selector],)
    predicate = compile_selector(selector)
    chosen = tuple(tap for tap in graph if predicate(tap))
    if not chosen:
        raise no_such_tap(graph, selector, hint)
    # A pattern means what can be read; what cannot comes back only where nothing else matches, as
    # with a native index, so that the plan says why.
    return tuple(tap for tap in chosen if not tap.untappable) or chosen


def no_such_tap(graph: Graph, selector: object, hint: str = "") -> NoSuchTap:
    """The error for a selector that matches nothing in ``graph``: near names, or else the first of
    those that there are, and ``hint``, what else may help."""
    if isinstance(selector, TapPoint):
        selector = selector.name
    if not isinstance(selector, str):
        return NoSuchTap("the selector matches no tap point", hint=hint or _there_are(graph))
    near = _near(graph, selector.strip("*?").lower())
    help_ = [f"near names: {', '.join(near)}" if near else _there_are(graph), hint]
    return NoSuchTap(
        f"no tap point matches {abridged(selector)!r}", hint="; ".join(filter(None, help_))
    )


def _near(graph: Graph, wanted: str) -> list[str]:
    names = {tap.name.lower(): _shown(tap) for tap in graph}
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    near += [name for name in names if wanted and wanted in name][: 3 - len(near)]
    return [names[name] for name in dict.fromkeys(near)]


def _there_are(graph: Graph) -> str:
    computed = [tap for tap in graph if tap.kind in COMPUTED] or list(graph)
    return f"there are {listed(map(_shown, computed))}" if computed else "there are none"


def _shown(tap: TapPoint, most: int = 48) -> str:
    """The name, or for the joined names that converters write, its beginning and the index."""
    return tap.name if len(tap.name) <= most else f"{tap.native} ({tap.name[: most - 3]}...)"


def _computed(tap: TapPoint) -> bool:
    return tap.kind in COMPUTED


class _Parser:
    """Recursive descent over one selector text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.names_kind = False

    def predicate(self) -> Predicate:
        matches = self._union()
        if self._peek():
            raise self._error(f"unexpected {self._peek()!r}")
        return lambda tap: tap.name == self.text or matches(tap)

    def _union(self) -> Predicate:
        parts = [self._intersection()]
        while self._take("|"):
            parts.append(self._intersection())
        return parts[0] if len(parts) == 1 else lambda tap: any(part(tap) for part in parts)

    def _intersection(self) -> Predicate:
        parts = [self._part()]
        while self._take("&"):
            parts.append(self._part())
        return parts[0] if len(parts) == 1 else lambda tap: all(part(tap) for part in parts)

    def _part(self) -> Predicate:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._error("too many parentheses or complements inside one another")
        part = self._one_part()
        self.depth -= 1
        return part

    def _one_part(self) -> Predicate:
        if self._take("~"):
            part = self._part()
            return lambda tap: self._in_reach(tap) and not part(tap)
        if self._take("("):
            inner = self._union()
            if not self._take(")"):
                raise self._error("missing ')'")
            return inner
        if self._take('"'):
            return self._atom(self._until_quote())
        if self.text.startswith("re:", self.at):
            rest, self.at = self.text[self.at :], len(self.text)
            return self._atom(rest.strip())
        return self._atom(self._bare())

    def _atom(self, text: str) -> Predicate:
        if not text:
            raise self._error("a pattern is missing")
        if _NATIVE.fullmatch(text):
            return lambda tap: tap.native == text
        head, _, pattern = text.partition(":")
        if head == "kind" and pattern in _KINDS:
            self.names_kind = True
            return lambda tap: tap.kind == pattern
        if head == "kind":
            raise self._error(f"unknown kind {pattern!r}, it is one of {', '.join(_KINDS)};")
        if head == "op":
            wanted = pattern.lower()
            return lambda tap: self._in_reach(tap) and fnmatchcase(tap.op.lower(), wanted)
        if head == "re":
            search = self._regex(pattern).search
            return lambda tap: self._in_reach(tap) and search(tap.name) is not None
        return lambda tap: tap.name == text or (self._in_reach(tap) and fnmatchcase(tap.name, text))

    def _in_reach(self, tap: TapPoint) -> bool:
        return self.names_kind or tap.kind in COMPUTED

    def _regex(self, pattern: str) -> re.Pattern[str]:
        try:
            return re.compile(pattern)
        except (re.error, OverflowError) as error:
            raise self._error(f"bad regular expression {pattern!r}: {error}") from error
        except RecursionError:
            raise self._error("a regular expression with too much inside one another") from None

    def _until_quote(self) -> str:
        end = self.text.find('"', self.at)
        if end < 0:
            raise self._error("missing closing quote")
        quoted, self.at = self.text[self.at : end], end + 1
        return quoted

    def _bare(self) -> str:
        """Text up to the next operator; parentheses inside a name must be balanced."""
        start, depth = self.at, 0
        while self.at < len(self.text):
            char = self.text[self.at]
            if depth == 0 and char in "|&)":
                break
            depth += (char == "(") - (char == ")")
            self.at += 1
        return self.text[start : self.at].strip()

    def _peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _take(self, char: str) -> bool:
        found = self._peek() == char
        self.at += found
        return found

    def _error(self, what: str) -> SelectionError:
        return SelectionError(
            f"{what} at position {self.at} of the selector {abridged(self.text)!r}",
            hint='patterns combine with |, & and ~; put a name that holds these in "quotes"',
        )
