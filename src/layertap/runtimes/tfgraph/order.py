"""Nodes in an order in which they can run."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from layertap.runtimes.tfgraph.scope import Node

BACK = ("NextIteration", "RefNextIteration")


def in_order(nodes: Mapping[str, Node]) -> Iterator[Node]:
    """Every node after those that it needs, else in the given order; what a loop of old hands to
    its next iteration counts as needed by nobody."""
    position = {name: i for i, name in enumerate(nodes)}
    waiting: dict[str, int] = {}
    followers: dict[str, list[str]] = {name: [] for name in nodes}
    for node in nodes.values():
        needed = {ref[0] for ref in node.inputs} | set(node.controls)
        needed = {name for name in needed if nodes[name].op not in BACK}
        waiting[node.name] = len(needed)
        for name in needed:
            followers[name].append(node.name)
    ready = [position[name] for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    names = list(nodes)
    while ready:
        node = nodes[names[heapq.heappop(ready)]]
        yield node
        for name in followers[node.name]:
            waiting[name] -= 1
            if not waiting[name]:
                heapq.heappush(ready, position[name])
