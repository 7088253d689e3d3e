"""``layertap export``: write a model whose outputs are layers of another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from layertap.cli.options import (
    input_options,
    json_option,
    runtime_choice,
    runtime_options,
    source_argument,
    traced,
)
from layertap.cli.source import open_model
from layertap.core.units import format_bytes


@click.command(short_help="write a model whose outputs are layers of another")
@source_argument
@click.option("--add-outputs", metavar="SELECTOR", multiple=True, help="Keep all, add these.")
@click.option("--until", metavar="SELECTOR", multiple=True, help="Keep only what computes these.")
@click.option("-o", "--to", "output", metavar="FILE", required=True, help="Where to write it.")
@runtime_options
@input_options
@json_option
def export(
    source: str,
    add_outputs: tuple[str, ...],
    until: tuple[str, ...],
    output: str,
    as_json: bool,
    **shared: Any,
) -> None:
    """Make a model of SOURCE that is its own extractor: it runs without layertap.

    Inputs serve as an example, where the runtime needs one to know the layers.

    \b
    layertap export model.tflite --add-outputs '*conv*' -o tapped.tflite
    layertap export model.tflite --until '#12' -o features.tflite
    """
    runtime, options = runtime_choice(shared)
    with open_model(source, runtime, options) as model:
        traced(model, shared)
        model.export(output, add_outputs=add_outputs or None, until=until or None)
    size = _size(Path(output))
    if as_json:
        print(json.dumps({"path": output, "bytes": size}))
        return
    print(f"{output}: {size:,} bytes ({format_bytes(size)})")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


__all__ = ["export"]
