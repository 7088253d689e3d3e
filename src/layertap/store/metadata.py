"""The run's own document: provenance and taps as attributes of the Zarr group."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from layertap.core.graph import Kind, Per, TapPoint
from layertap.core.protocols import Json
from layertap.core.quantization import Quantization
from layertap.errors import StoreError
from layertap.store.failure import damaged
from layertap.store.journal import State
from layertap.store.layout import DOCUMENT, read_json
from layertap.store.naming import is_node_name

FORMAT = 1
"""Version of the format; a reader refuses a later one."""

_NOT_COMPARED = ("created", "host", "layertap", "observed", "sample_axis")
_ANY_AXIS = {"per": "batch", "batch_axis": 0}


@dataclass(frozen=True)
class RunDocument:
    """What the group's attributes say; ``nodes`` are array names, one per tap. ``notes`` is the
    part of the provenance that came while the run went on."""

    provenance: Mapping[str, Json]
    taps: Sequence[TapPoint]
    nodes: Sequence[str]
    notes: Mapping[str, Json] = field(default_factory=dict)

    def content(self, state: State) -> dict[str, Json]:
        """The group's ``zarr.json``, with the state for those who read without layertap."""
        pairs = enumerate(zip(self.taps, self.nodes, strict=True))
        attributes = {
            "format": FORMAT,
            "samples": state.samples,
            "complete": state.complete,
            "inputs_sha256": state.inputs,
            "provenance": {**self.provenance, **self.notes},
            "noted": sorted(self.notes),
            "taps": [
                {"array": node, "stored": state.flags(i), **tap_to_json(tap)}
                for i, (tap, node) in pairs
            ],
        }
        return {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"layertap": plain_json(attributes)},
        }


def plain_json(value: Json) -> Json:
    """``value`` as JSON gives it back: tuples as lists, numbers that JSON lacks and foreign
    objects as text."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, str | int | None) else str(value)


def tap_to_json(tap: TapPoint) -> dict[str, Json]:
    """Everything about a tap, as attributes."""
    return {
        "name": tap.name,
        "kind": tap.kind,
        "op": tap.op,
        "dtype": tap.dtype,
        "shape": None if tap.shape is None else list(tap.shape),
        "per": tap.per,
        "batch_axis": tap.batch_axis,
        "index": tap.index,
        "subgraph": tap.subgraph,
        "operands": list(tap.operands),
        "quantization": quantization_to_json(tap.quantization),
        "source": tap.source,
        "also": list(tap.also),
    }


def quantization_to_json(quantization: Quantization | None) -> Json:
    if quantization is None:
        return None
    return {
        "scales": [float(scale) for scale in quantization.scales],
        "zero_points": [int(zero) for zero in quantization.zero_points],
        "axis": quantization.axis,
    }


def _tap_from_json(found: Mapping[str, Json]) -> TapPoint:
    if found["kind"] not in get_args(Kind) or found["per"] not in get_args(Per):
        raise ValueError(f"kind {found['kind']!r} or per {found['per']!r}")
    shape = None if found["shape"] is None else tuple(_size(n) for n in found["shape"])
    return TapPoint(
        name=str(found["name"]),
        kind=found["kind"],
        op=str(found["op"]),
        dtype=str(found["dtype"]),
        shape=shape,
        index=int(found["index"]),
        subgraph=int(found["subgraph"]),
        per=found["per"],
        batch_axis=_axis(found.get("batch_axis", 0), shape),
        operands=tuple(map(str, found["operands"])),
        quantization=_quantization_from_json(found["quantization"], shape),
        source=str(found.get("source", "")),
        also=tuple(map(str, found.get("also", ()))),
    )


def _quantization_from_json(found: Json, shape: Sequence[int | None] | None) -> Quantization | None:
    if found is None:
        return None
    scales, zeros = tuple(map(float, found["scales"])), tuple(map(int, found["zero_points"]))
    if not scales or len(scales) != len(zeros):
        raise ValueError(f"{len(scales)} scales for {len(zeros)} zero points")
    return Quantization(scales, zeros, _axis(found["axis"], shape if len(scales) > 1 else None))


def _axis(axis: Json, shape: Sequence[int | None] | None) -> int:
    if int(axis) < 0 or (shape and int(axis) >= len(shape)):
        raise ValueError(f"axis {axis} of the shape {shape}")
    return int(axis)


def _size(size: Json) -> int | None:
    return None if size is None else int(size)


def is_run(path: Path) -> bool:
    """Whether the folder at ``path`` is a run, of whatever version."""
    try:
        attributes = read_json(path / DOCUMENT).get("attributes")
    except StoreError:
        return False
    return isinstance(attributes, dict) and isinstance(attributes.get("layertap"), dict)


def read_document(path: Path) -> RunDocument:
    """The document of the run at ``path``. Raises StoreError when it is not a run, was written by
    a later layertap, or is damaged."""
    if not is_run(path):
        raise StoreError(
            f"{path} is not a run of layertap" if path.exists() else f"there is no run at {path}",
            hint="give the folder that 'layertap capture --to' wrote",
        )
    found = read_json(path / DOCUMENT)["attributes"]["layertap"]
    if found.get("format") != FORMAT:
        raise StoreError(
            f"{path} has format {found.get('format')!r}, this layertap reads {FORMAT}",
            hint="upgrade layertap",
        )
    try:
        taps = tuple(_tap_from_json(tap) for tap in found["taps"])
        nodes = tuple(tap["array"] for tap in found["taps"])
        noted = set(found.get("noted", ()))
        facts = dict(found["provenance"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise damaged(path / DOCUMENT, f"does not describe its taps: {error}") from error
    if not all(map(is_node_name, nodes)) or len({node.lower() for node in nodes}) < len(nodes):
        raise damaged(path / DOCUMENT, "names arrays outside the run, or one array twice")
    if len({tap.name for tap in taps}) < len(taps):
        raise damaged(path / DOCUMENT, "names one tap twice")
    notes = {key: facts.pop(key) for key in noted & facts.keys()}
    return RunDocument(facts, taps, nodes, notes)


def check_same(path: Path, old: RunDocument, new: RunDocument, state: State) -> None:
    """Raise StoreError, naming what differs, unless a run described by ``new`` can go on where
    ``old`` ended in ``state``. Where, when and by which layertap it was captured may differ, and
    whether a tap that was demoted has an axis of samples."""
    there, here = _comparable(old, state), _comparable(new, state)
    differing = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    if not differing:
        return
    key = differing[0]
    if key == "taps":
        names = {tap.name for tap in old.taps} ^ {tap.name for tap in new.taps}
        what = f"taps ({', '.join(sorted(names)[:3]) or 'order, dtype or axis of samples'})"
    else:
        what = f"{key} ({_short(there.get(key))} there, {_short(here.get(key))} here)"
    raise StoreError(
        f"cannot resume the run {path}: it differs in {what}",
        hint="resume with the same model, taps and options, or start anew with overwrite "
        "(--overwrite)",
    )


def _comparable(document: RunDocument, state: State) -> dict[str, Json]:
    facts = plain_json(document.provenance)
    facts = {key: value for key, value in facts.items() if key not in _NOT_COMPARED}
    model = facts.get("model")
    if isinstance(model, dict) and model.get("sha256"):
        facts["model"] = model["sha256"]  # the same file, wherever it lies now
    # The shapes are not compared: a runtime that learns them from an example may see other ones.
    # Nor are lines of code, which may have moved.
    left_out: dict[str, Json] = {"shape": None, "source": "", "also": []}
    taps = [
        {**tap_to_json(tap), **left_out, **(_ANY_AXIS if "batch" in state.flags(i) else {})}
        for i, tap in enumerate(document.taps)
    ]
    return {**facts, "taps": plain_json(taps)}


def _short(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) < 50 else f"{text[:46]}..."
