"""Loops and branches of TensorFlow 1, which are made of nodes: Enter, Merge, Switch, Exit.

A branch is the side of a Switch; in a loop's frame each node runs once per iteration. Values are
brought out as in :mod:`accumulate`, with a list that takes the same ways as the value does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import tensorflow as tf

from layertap.runtimes.tfgraph.accumulate import Builder, Listed, Push, forms_of
from layertap.runtimes.tfgraph.infer import Type
from layertap.runtimes.tfgraph.scope import BACK, Node, Ref, Scope

OPS = frozenset(
    {
        name
        for op in ("Switch", "Merge", "Enter", "Exit", "NextIteration")
        for name in (op, f"Ref{op}")
    }
)
_SAME = {"Enter", "RefEnter", *BACK}
"""What only hands its input into another iteration: read before, where it is the same value."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A side of a Switch, at a depth of nested loops. ``pred`` is the tensor that decides."""

    pred: Ref
    side: int
    depth: int


@dataclass(frozen=True, slots=True)
class Context:
    """Where a tensor lives: in the frames of these loops (by the node that decides whether to go
    on), outermost first, in these branches; ``bodies`` tells for each loop whether in its body, or
    in what decides on the next iteration."""

    frames: tuple[str, ...] = ()
    branches: tuple[Branch, ...] = ()
    bodies: tuple[bool, ...] = ()
    leaving: bool = False

    @property
    def plain(self) -> bool:
        return not self.frames and not self.branches and not self.leaving

    @property
    def maybe(self) -> bool:
        """Whether a run may pass it by."""
        return any(branch.depth == 0 for branch in self.branches)


def contexts_of(scope: Scope) -> Contexts | None:
    """The contexts of the tensors of ``scope``, None where there are no such loops and branches."""
    return Contexts(scope) if any(node.op in OPS for node in scope.nodes.values()) else None


@dataclass
class Contexts:
    """The context of every tensor of a scope that has any such node."""

    scope: Scope

    def __post_init__(self) -> None:
        self._refs: dict[Ref, Context] = {}
        self._nodes: dict[str, Context] = {}
        for node in self.scope.nodes.values():
            self._nodes[node.name] = self._context(node)
        conditions = (node for node in self.scope.nodes.values() if node.op == "LoopCond")
        self._deciding = {self._nodes[n.name].frames: (n.name, 0) for n in conditions}

    def condition(self, frames: tuple[str, ...]) -> Ref:
        """What decides whether the innermost of these loops goes on."""
        return self._deciding[frames]

    def __getitem__(self, ref: Ref) -> Context:
        found = self._refs.get(ref)
        return self._nodes[ref[0]] if found is None else found

    def source(self, ref: Ref) -> Ref:
        """The tensor to read for ``ref``: the same value, where it can be read."""
        while self.scope.nodes[ref[0]].op in _SAME:
            ref = self.scope.nodes[ref[0]].inputs[0]
        return ref

    def _context(self, node: Node) -> Context:
        around = self._around(node)
        op = node.op.removeprefix("Ref")
        if op == "Enter":
            frame = node.proto.attr["frame_name"].s.decode()
            return replace(around, frames=(*around.frames, frame), bodies=(*around.bodies, False))
        if op == "Exit":
            depth = max(len(around.frames) - 1, 0)
            outer = tuple(branch for branch in around.branches if branch.depth <= depth)
            return Context(around.frames[:depth], outer, around.bodies[:depth])
        if op == "Switch":
            self._switch(node, around)
        if op == "Merge" and not self._starts_loop(node):
            common = [set(self[ref].branches) for ref in node.inputs]
            kept = [one for one in around.branches if all(one in branches for branches in common)]
            return replace(around, branches=tuple(kept))
        return around

    def why_not(self, ref: Ref) -> str:
        """Why a tensor cannot be brought out, or an empty text."""
        context = self[ref]
        if context.leaving:
            return "it leaves a loop: read the loop's Exit, which is the same value"
        for depth in range(len(context.frames)):
            if context.frames[: depth + 1] not in self._deciding:
                return "it is in a loop without a condition"
        return ""

    def _starts_loop(self, node: Node) -> bool:
        return any(self.scope.nodes[ref[0]].op in BACK for ref in node.inputs)

    def _around(self, node: Node) -> Context:
        """Everything that the inputs of a node are in."""
        near = [self[ref] for ref in node.inputs if self.scope.nodes[ref[0]].op not in BACK]
        near += [self._nodes[name] for name in node.controls if name in self._nodes]
        if not near:
            return Context()
        deepest = max(near, key=lambda context: len(context.frames))
        branches = dict.fromkeys(branch for context in near for branch in context.branches)
        same = [context.bodies for context in near if context.frames == deepest.frames]
        bodies = tuple(map(any, zip(*same, strict=True)))
        leaving = any(one.leaving for one in near if one.frames == deepest.frames)
        return Context(deepest.frames, tuple(branches), bodies, leaving)

    def _switch(self, node: Node, around: Context) -> None:
        pred = node.inputs[1]
        if self.scope.nodes[pred[0]].op == "LoopCond":
            bodies = (*around.bodies[:-1], True)
            self._refs[node.name, 0] = replace(around, leaving=True)
            self._refs[node.name, 1] = replace(around, bodies=bodies)
            return
        for side in (0, 1):
            branch = Branch(pred, side, len(around.frames))
            self._refs[node.name, side] = replace(around, branches=(*around.branches, branch))


def expose_classic(
    scope: Scope, contexts: Contexts, wanted: Sequence[tuple[Ref, Type]]
) -> tuple[Scope, list[Listed]]:
    """``scope`` with further nodes that list the values of each tensor, in order."""
    build = _Gatherer(dict(scope.nodes), contexts)
    listed = []
    for ref, kind in wanted:
        lists = [
            build.gathered(Push((), ref, kind.dtype, form), contexts[ref])
            for form in forms_of(kind.shape)
        ]
        listed.append(build.listed(lists, kind))
    return replace(scope, nodes=build.nodes), listed


class _Gatherer(Builder):
    def __init__(self, nodes: dict[str, Node], contexts: Contexts) -> None:
        super().__init__(nodes)
        self._contexts = contexts
        self._iterations: dict[tuple[str, ...], int] = {}
        for node in nodes.values():
            if node.op == "Enter" and "parallel_iterations" in node.proto.attr:
                frames = contexts[node.name, 0].frames
                self._iterations[frames] = int(node.proto.attr["parallel_iterations"].i)

    def gathered(self, push: Push, context: Context) -> Ref:
        """The list of everything that ``push`` pushes."""
        return self._along(self.empty_list(push.dtype), push, context, 0)

    def _along(self, values: Ref, push: Push, context: Context, depth: int) -> Ref:
        """Take a list through the branches and the loop at ``depth`` of nested loops."""
        passed: list[Ref] = []
        for branch in context.branches:
            if branch.depth == depth:
                name, _ = self._variant("Switch", (values, branch.pred))
                passed.append((name, 1 - branch.side))
                values = (name, branch.side)
        if depth == len(context.frames):
            values = self.pushed(values, push)
        else:
            values = self._around(values, push, context, depth)
        if passed:
            values = self.add(
                "Merge", (values, *passed), types={"T": tf.variant}, N=1 + len(passed)
            )
        return values

    def _around(self, values: Ref, push: Push, context: Context, depth: int) -> Ref:
        """Take a list around a loop."""
        frames = context.frames[: depth + 1]
        enter = self.add(
            "Enter",
            (values,),
            types={"T": tf.variant},
            frame_name=frames[-1],
            is_constant=False,
            parallel_iterations=self._iterations.get(frames, 10),
        )
        merge = self.add("Merge", (enter, enter), types={"T": tf.variant}, N=2)
        if context.bodies[depth]:
            name, _ = self._variant("Switch", (merge, self._contexts.condition(frames)))
            values = self._along((name, 1), push, context, depth + 1)
        else:
            values = self._along(merge, push, context, depth + 1)
            name, _ = self._variant("Switch", (values, self._contexts.condition(frames)))
            values = (name, 1)
        following = self._variant("NextIteration", (values,))
        self.nodes[merge[0]] = replace(self.nodes[merge[0]], inputs=(enter, following))
        return self._variant("Exit", ((name, 0),))

    def _variant(self, op: str, inputs: Sequence[Ref]) -> Ref:
        return self.add(op, inputs, types={"T": tf.variant})
