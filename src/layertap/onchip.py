"""A model on a board: firmware for it, and what it sends."""

from __future__ import annotations

__all__: list[str] = []
