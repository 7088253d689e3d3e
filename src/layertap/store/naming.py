"""File-safe, unique array names for tap names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

SAMPLE = "sample"
"""The coordinate array that numbers the samples; its folder holds the journal."""

LENGTH = 160
"""Longest array name, in bytes: room for the suffixes below within a file name's 255."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_.@-]")
_SAFE = re.compile(r"[A-Za-z0-9_.@~-]{1,240}")
# Names that Windows keeps for devices; a run copied there must stay readable.
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def node_names(names: Iterable[str]) -> list[str]:
    """One array name per tap name: ASCII, unique regardless of case, at most LENGTH + 8 bytes.

    ``~`` never comes from a tap name: it sets off what layertap adds (``conv~2`` for a second
    tap that sanitises to ``conv``, ``conv~samples`` for a companion array). Percent-encoding
    would not do: TensorStore decodes it in its URLs.
    """
    taken = {SAMPLE, "zarr.json"}
    nodes = []
    for name in names:
        base = node = _sanitise(name)
        number = 1
        while node.lower() in taken:
            number += 1
            node = f"{base}~{number}"
        taken.add(node.lower())
        nodes.append(node)
    return nodes


def is_node_name(name: object) -> bool:
    """Whether ``name``, read from a run of unknown origin, stays inside the run's folder."""
    return isinstance(name, str) and bool(_SAFE.fullmatch(name)) and not _is_reserved(name)


def _is_reserved(name: str) -> bool:
    return name.strip(".") == "" or name.lower() in (SAMPLE, "zarr.json")


def _sanitise(name: str) -> str:
    node = _UNSAFE.sub("_", name) or "_"
    if len(node) > LENGTH:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        node = f"{node[: LENGTH - 9]}~{digest[:8]}"
    if node[0] == ".":
        node = "_" + node[1:]
    if node[-1] == ".":
        node = node[:-1] + "_"
    # Zarr v3 reserves names that begin with two underscores.
    return f"tap{node}" if node.startswith("__") or _DEVICE.fullmatch(node) else node
