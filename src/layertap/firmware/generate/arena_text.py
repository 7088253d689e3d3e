"""What a firmware says of its arena, in its README.md and in its sources."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from layertap.arena.memory_map import Shared
from layertap.firmware.generate.arena_size import ArenaSize

_WIDTH = 100
"""Characters of a line."""


def arena_values(arena: ArenaSize, shared: Sequence[Shared]) -> Mapping[str, str]:
    """What the placeholders about the arena stand for; ``shared`` is what the layout in the model
    lets lie over one another."""
    return {
        "arena_bytes": _bytes(arena),
        "arena_origin": _filled(
            f"Bytes of the arena: {arena.origin}.{_doubt(arena)}", subsequent_indent="// "
        ),
        "arena_paragraph": _paragraph(arena) + _layout_paragraph(shared),
        "layout_check": _layout_check(shared),
    }


def _bytes(arena: ArenaSize) -> str:
    if arena.narrow == arena.wide:
        return str(arena.narrow)
    return f"sizeof(void *) > 4 ? {arena.wide} : {arena.narrow}"


def _paragraph(arena: ArenaSize) -> str:
    wide = "" if arena.wide == arena.narrow else f" ({arena.wide:,} where pointers have 64 bits)"
    return _filled(
        f"The arena has {arena.narrow:,} bytes{wide}: {arena.origin}.{_doubt(arena)} If the board "
        "says that AllocateTensors() failed, give it more: `--arena BYTES`. It tells the host how "
        "many bytes are in use; `layertap show RUN --json` has that figure."
    )


def _doubt(arena: ArenaSize) -> str:
    """What may ask for more than the arena has."""
    if not arena.guessed:
        return ""
    return (
        f" Not known is {', or '.join(arena.guessed)}: wide convolutions may need more than this."
    )


def _layout_paragraph(shared: Sequence[Shared]) -> str:
    libraries = _replacing(shared)
    if not libraries:
        return ""
    text = _filled(
        f"The layout in this model lays the result of {len(shared)} operators over what they read, "
        "as the reference kernels bear it. Build TensorFlow Lite Micro with those: with kernels of "
        f"{', '.join(libraries)} the values may be wrong."
    )
    return f"\n\n{text}"


def _layout_check(shared: Sequence[Shared]) -> str:
    """Builds with other kernels define the name of their library."""
    libraries = _replacing(shared)
    if not libraries:
        return ""
    defined = " || ".join(f"defined({library.upper()})" for library in libraries)
    return (
        f"\n#if {defined}\n"
        '#error "the layout in this model is right for the reference kernels only: README.md"\n'
        "#endif\n"
    )


def _replacing(shared: Sequence[Shared]) -> list[str]:
    """The libraries with kernels of their own for one of these operators."""
    return list(dict.fromkeys(library for one in shared for library in one.vendors))


def _filled(text: str, *, subsequent_indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, break_on_hyphens=False, subsequent_indent=subsequent_indent)


__all__ = ["arena_values"]
