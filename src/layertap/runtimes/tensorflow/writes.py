"""Which operations change the variables and tables that a graph is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layertap.runtimes.tfgraph.scope import LOOPS, Scope

READS = frozenset(
    {
        "ReadVariableOp",
        "ResourceGather",
        "ResourceGatherNd",
        "VariableShape",
        "VarIsInitializedOp",
        "LookupTableFindV2",
        "LookupTableSizeV2",
        "LookupTableExportV2",
    }
)
"""Operations that leave the variable or table whose handle they take as it is."""

HANDING_ON = ("Identity", "Enter", "Switch")
"""Operations that hand on the handle they take."""


def writes(scope: Scope, resources: Mapping[str, str]) -> dict[str, str]:
    """The nodes of ``scope`` that change a resource, here or in a scope inside, each with that
    resource. ``resources``: what nodes stand for a handle, and for which."""
    return dict(_writes(scope, resources))


def _writes(scope: Scope, resources: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    known = dict(resources)
    for node in scope.nodes.values():
        handles = [known.get(ref[0], "") for ref in node.inputs]
        if not any(handles):
            continue
        if node.op in HANDING_ON:
            known[node.name] = handles[0]
        elif node.branches:
            start = 0 if node.op in LOOPS else 1
            for branch in node.branches:
                given = zip(branch.args, handles[start:], strict=True)
                inner = _writes(branch, {arg: name for arg, name in given if name})
                yield from ((node.name, name) for _, name in inner)
        elif node.op not in READS:
            yield from ((node.name, name) for name in handles if name)
